"""How well a model ranks, as its run or its export tells."""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rd_tf import run_directory
from rd_tf.storage import InputError, read_manifest, require

EXTRA = "assets.extra"
REPORT_FILE = Path(EXTRA) / "report.json"


@dataclasses.dataclass(frozen=True)
class Measured:
    """How well a model ranks and on what that was measured.

    Attributes:
        metrics: name -> value, as in a run's metrics.json: `map`, `ndcg@10`, ...
        split: "validation" or "test".
        dataset: fingerprint.
        source: the run or the version, for messages.
    """

    metrics: Mapping[str, float]
    split: str
    dataset: str
    source: str


def measured_run(run_dir: str | os.PathLike[str], flag: str = "run_dir") -> Measured:
    """What a finished run's metrics.json says.

    Args:
        run_dir: the run directory.
        flag: the flag that named it, for messages.

    Raises:
        InputError: no finished run, or its metrics.json is missing or damaged.
    """
    manifest = run_directory.load_run_manifest(run_dir, flag)
    path = Path(run_dir) / run_directory.METRICS
    found = read_manifest(path, {"split": str, "metrics": dict})
    return Measured(_numbers(found["metrics"], path), found["split"], manifest["dataset"]["fingerprint"], str(run_dir))


def measured_version(version: str | os.PathLike[str], name: str = "") -> Measured:
    """What the report of an exported version says of the model as it was exported.

    Args:
        version: the version's directory.
        name: what messages call it; empty: its directory.

    Raises:
        InputError: there is no report, it is damaged, or it has no metrics.
    """
    path, name = Path(version) / REPORT_FILE, name or str(version)
    if not path.exists():
        raise InputError(
            f"{path} is missing, so there is nothing to hold a model against; name a run by --gate_against"
        )
    report = read_manifest(path, {})
    if report.get("quality") is None:
        raise InputError(f"{name} was not measured, since nobody has a held-out item; leave --min_metric_ratio out")
    require(report, {"quality.exported": dict, "quality.split": str, "quality.dataset": str}, path)
    quality = report["quality"]
    return Measured(_numbers(quality["exported"], path), quality["split"], quality["dataset"], name)


def _numbers(metrics: Mapping[str, Any], path: Path) -> dict[str, float]:
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{path} is damaged ({name} is {value!r}); make it again")
    return dict(metrics)
