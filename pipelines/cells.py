"""The cells of the paper's tables: a model on a dataset, in the three roles."""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from pipelines.distill import distill
from pipelines.published import COLUMNS
from rd_tf import command_line
from rd_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Cell:
    """A dataset and a model, by name.

    Attributes:
        dataset: the dataset directory below --datasets_dir.
        model: the flagfile `<configs_dir>/<dataset>/<model>.cfg`, whatever the model in it is.
    """

    dataset: str
    model: str

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.model}"

    def arguments(self, configs_dir: str, datasets_dir: str) -> list[str]:
        """The cell's arguments of `pipelines.distill`."""
        config = Path(configs_dir) / self.dataset / f"{self.model}.cfg"
        return [f"--flagfile={config}", f"--dataset={Path(datasets_dir) / self.dataset}"]


def parse_cells(texts: list[str], flag: str) -> list[Cell]:
    """Reads cells such as gowalla/caser.

    Raises:
        InputError: one has not the form <dataset>/<model>, or stands twice.
    """
    for text in texts:
        parts = text.split("/")
        if len(parts) != 2 or not all(part and part == part.strip() and part not in (".", "..") for part in parts):
            raise InputError(f"--{flag}: {text!r} is no cell; write <dataset>/<model>, such as gowalla/caser")
    if len(set(texts)) < len(texts):
        raise InputError(f"--{flag}={','.join(texts)} names a cell twice; name each once")
    return [Cell(*text.split("/")) for text in texts]


def distill_flags(arguments: list[str]) -> dict[str, Any]:
    """Every flag of `pipelines.distill` that these arguments come to.

    Raises:
        InputError: the flagfile is missing or cannot be used.
    """
    try:
        return command_line.parse(distill, arguments)
    except flags.Error as error:
        raise InputError(f"{arguments[0]}: {' '.join(str(error).split())}") from None


def check_trainable(arguments: list[str]) -> None:
    """Refuses before training what would come out after hours of it.

    Raises:
        InputError: the flagfile or the dataset is missing or cannot be used, or a metric of the tables would be.
    """
    from rd_tf.data.dataset_directory import load_manifest

    values = distill_flags(arguments)
    load_manifest(values["dataset"])
    cutoffs = {name.partition("@")[2] for name in COLUMNS} - {""}
    if not cutoffs <= {text.strip() for text in values["cutoffs"]}:
        wanted = ",".join(sorted(cutoffs, key=int))
        raise InputError(f"{arguments[0]} has --cutoffs={','.join(values['cutoffs'])}; the tables need {wanted} too")
