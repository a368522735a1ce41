"""Whether evidence is that of the training that would be started now."""

from pathlib import Path
from typing import Any

from pipelines.flag_difference import flag_difference
from pipelines.run_record import read_manifest
from rd_tf.command_line import flag_lines
from rd_tf.data.dataset import load_manifest
from rd_tf.storage import InputError

_ADVICE = "delete that directory and its run to train it again, or name another --results"


def check_evidence(directory: Path, flags: dict[str, Any]) -> None:
    """Refuses evidence of other settings, or of other data where the dataset directory is there to compare.

    Args:
        directory: the evidence of a run.
        flags: every flag of `rd_tf.train` that this run would have now.

    Raises:
        InputError: it is that of another training.
    """
    manifest = read_manifest(directory)
    difference = flag_difference(manifest["flags"], flags)
    if difference:
        name, before, now = difference
        found, expected = (flag_lines({name: value}).strip() for value in (before, now))
        raise InputError(f"{directory} was trained with {found}, but {expected} is wanted now; {_ADVICE}")
    dataset = Path(flags["dataset"])
    if (dataset / "manifest.json").is_file():
        trained_on, there = manifest["dataset"]["fingerprint"], load_manifest(dataset)["fingerprint"]
        if trained_on != there:
            raise InputError(
                f"{directory} was trained on the --dataset {trained_on[:16]}, but {dataset} is {there[:16]} now; "
                f"{_ADVICE}"
            )
