"""What finished runs, and the evidence of them in results/, hold: read, checked, compared and copied."""

import math
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from pipelines.distill import ROLES
from rd_tf import run_directory, storage
from rd_tf.command_line import flag_lines
from rd_tf.data.dataset import load_manifest
from rd_tf.storage import InputError
from rd_tf.train import flag_difference

# Those that the student distilled is compared with, in the order of the comparisons -> title.
REFERENCES = {role: ROLES[role] for role in ("student", "teacher")}
# The paper's metrics in the order of its tables.
COLUMNS = (
    "precision@3",
    "precision@5",
    "precision@10",
    "ndcg_tang@3",
    "ndcg_tang@5",
    "ndcg_tang@10",
    "map",
)
# The same in print.
HEADS = ("P@3", "P@5", "P@10", "N@3", "N@5", "N@10", "MAP")
# The same as `per_user.parquet` names them: `ap`'s mean is the MAP.
PER_USER_METRICS = tuple("ap" if name == "map" else name for name in COLUMNS)
_OF_MANIFEST = {"flags.model": str, "flags.dim": int, "seconds": int | float}
_COUNTS = ("users", "users_without_targets", "targets", "unknown_targets", "repeated_targets")
_OF_METRICS = {
    "split": str,
    "metrics": dict,
    "counts": dict,
    **dict.fromkeys((f"counts.{name}" for name in _COUNTS), int),
}
# What results/ keep of every run.
FILES = (
    run_directory.FLAGS,
    run_directory.METRICS,
    run_directory.HISTORY,
    run_directory.LOG,
    run_directory.MANIFEST,
)
_COMPRESSION_LEVEL = 19
# Average precisions hardly repeat, so a dictionary does not help them; laid out byte by byte they compress.
_DICTIONARIES, _ENCODING = list(PER_USER_METRICS[:-1]), {"ap": "BYTE_STREAM_SPLIT"}
_ADVICE = "delete that directory and its run to train it again, or name another --results"


def read_per_user(directory: Path, metrics: Collection[str] = PER_USER_METRICS) -> pd.DataFrame:
    """Reads `user` int32 and some metrics float64 of a run or of its evidence, a row a user.

    Args:
        directory: of the run or of its evidence.
        metrics: as `per_user.parquet` names them.

    Raises:
        InputError: the file is missing or damaged, or lacks one of the metrics.
    """
    path = directory / run_directory.PER_USER
    types = {"user": "int32", **dict.fromkeys(metrics, "float64")}
    try:
        table = pd.read_parquet(path)
        missing = [name for name in types if name not in table]
        if not missing:
            table = table[list(types)].astype(types)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} cannot be read ({first}); evaluate the model again") from None
    if missing:
        raise InputError(f"{directory} was evaluated without {missing[0]}; the tables need --cutoffs=3,5,10")
    if table.isna().to_numpy().any():
        raise InputError(f"{path} is damaged (a value is missing); evaluate the model again")
    return table


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


def read_history(directory: Path) -> pd.DataFrame:
    """Reads numbers by name, `epoch` among them; NaN where an epoch has none.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = directory / run_directory.HISTORY
    try:
        history = pd.read_csv(path).astype("float64")
        history["epoch"] = history["epoch"].astype("int64")
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} is damaged ({first}); restore it or train the model again") from None
    return history


def model_fingerprint(directory: Path) -> str | None:
    """SHA-256 (hex) of a run's weights, from its manifest; None where no finished run is there.

    Raises:
        InputError: the manifest is damaged.
    """
    if not run_directory.is_finished_run(directory):
        return None
    return str(run_directory.load_run_manifest(directory)["model"]["fingerprint"])


def keep_evidence(run_dir: Path, target: Path, per_user: bool, files: Collection[str] = FILES) -> None:
    """Copies a finished run's evidence, whole or not at all.

    Args:
        run_dir: directory of the finished run.
        target: directory that the copy becomes; one that is there is replaced.
        per_user: whether to keep `per_user.parquet` too, cut down to `user` int32 and `PER_USER_METRICS`
            float64 (about 145 KB for 13,149 users).
        files: to copy beside it.

    Raises:
        InputError: the run has not finished, lacks one of the metrics or a file, or a file is damaged.
    """
    run_directory.load_run_manifest(run_dir)
    missing = [name for name in files if not (run_dir / name).is_file()]
    if missing:
        raise InputError(f"{run_dir / missing[0]} is missing; train the model again")
    with storage.atomic_directory(target, replace=True) as temporary:
        for name in files:
            shutil.copyfile(run_dir / name, temporary / name)
        if per_user:
            read_per_user(run_dir).to_parquet(
                temporary / run_directory.PER_USER,
                index=False,
                compression="zstd",
                compression_level=_COMPRESSION_LEVEL,
                use_dictionary=_DICTIONARIES,
                column_encoding=_ENCODING,
            )


def is_complete(directory: Path, per_user: bool, files: Collection[str] = FILES) -> bool:
    """Whether all that `keep_evidence` writes is there."""
    names = (*files, run_directory.PER_USER) if per_user else files
    return all((directory / name).is_file() for name in names)


def _as_flags(name: str, *values: Any) -> list[str]:
    return [flag_lines({name: value}).strip() for value in values]


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
        found, expected = _as_flags(*difference)
        raise InputError(f"{directory} was trained with {found}, but {expected} is wanted now; {_ADVICE}")
    dataset = Path(flags["dataset"])
    if (dataset / "manifest.json").is_file():
        trained_on, there = manifest["dataset"]["fingerprint"], load_manifest(dataset)["fingerprint"]
        if trained_on != there:
            raise InputError(
                f"{directory} was trained on the --dataset {trained_on[:16]}, but {dataset} is {there[:16]} now; "
                f"{_ADVICE}"
            )


def check_alike(
    path: Path, manifest: dict[str, Any], other_path: Path, other: dict[str, Any], but: Collection[str] = ()
) -> None:
    """Refuses two runs of different splits, data or settings.

    Args:
        path: directory of a run or its evidence, for the message.
        manifest: its manifest.
        other_path: directory of the other.
        other: the other's manifest.
        but: flags that may differ, beside those that have no part in the result.

    Raises:
        InputError: they differ.
    """
    for name, found, expected in (
        ("split", manifest["split"], other["split"]),
        ("dataset", manifest["dataset"]["fingerprint"][:16], other["dataset"]["fingerprint"][:16]),
    ):
        if found != expected:
            raise InputError(f"{path} has the {name} {found}, but {other_path} has {expected}; keep one {name} only")
    difference = flag_difference(manifest.get("flags") or {}, other.get("flags") or {}, but)
    if difference:
        found, expected = _as_flags(*difference)
        raise InputError(
            f"{path} was trained with {found}, but {other_path} with {expected}; keep runs of one setting only"
        )


def check_teacher(path: Path, manifest: dict[str, Any], teacher_path: Path, teacher: dict[str, Any]) -> None:
    """Refuses a student distilled from other weights than the teacher's.

    Args:
        path: directory of the student or its evidence, for the message.
        manifest: its manifest.
        teacher_path: directory of the teacher.
        teacher: the teacher's manifest.

    Raises:
        InputError: it had another teacher, or none.
    """
    found = (manifest.get("teacher") or {}).get("teacher")
    expected = teacher["model"]["fingerprint"]
    if found != expected:
        had = f"from the teacher {str(found)[:16]}" if found else "from no teacher"
        raise InputError(
            f"{path} was distilled {had}, but {teacher_path} is {expected[:16]}; delete both to train them again"
        )
