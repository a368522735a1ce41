"""A run's manifest and metrics, with all that tables and plots take from them."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rd_tf import run_directory, storage
from rd_tf.storage import InputError

_OF_MANIFEST = {"flags.model": str, "flags.dim": int, "seconds": int | float}
_OF_METRICS = {"split": str, "metrics": dict, "counts": dict}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a finished run or of its evidence.

    Raises:
        InputError: no finished run, or its manifest is damaged.
    """
    manifest = run_directory.load_run_manifest(directory)
    storage.require(manifest, _OF_MANIFEST, directory / run_directory.MANIFEST)
    return manifest


def read_metrics(directory: Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """What the `metrics.json` of a run or of its evidence holds.

    Args:
        directory: of the run or of its evidence.
        needed: metrics that must be there.

    Raises:
        InputError: it is missing or damaged, a metric is missing or no finite number.
    """
    path = directory / run_directory.METRICS
    found = storage.read_manifest(path, _OF_METRICS)
    missing = [name for name in needed if name not in found["metrics"]]
    if missing:
        raise InputError(f"{path} has no {missing[0]}; evaluate the model again")
    for group in ("metrics", "counts"):
        for name, value in found[group].items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{path} is damaged ({name} is {value!r}); evaluate the model again")
    return found
