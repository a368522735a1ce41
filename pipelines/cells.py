"""The cells of the paper's tables: a model on a dataset, in the three roles."""

import dataclasses
from pathlib import Path

from rd_tf.storage import InputError


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

    def flagfile(self, configs_dir: str) -> Path:
        """Where the cell's settings are."""
        return Path(configs_dir) / self.dataset / f"{self.model}.cfg"

    def arguments(self, configs_dir: str, datasets_dir: str) -> list[str]:
        """The cell's arguments of `pipelines.distill`, the flagfile first."""
        return [f"--flagfile={self.flagfile(configs_dir)}", f"--dataset={Path(datasets_dir) / self.dataset}"]


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
