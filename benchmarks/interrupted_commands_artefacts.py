"""What commands leave on disk: whether it is whole, and whether two of a kind are the same."""

import csv
import dataclasses
import filecmp
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rd_tf import run_directory
from rd_tf.data.dataset import load_dataset
from rd_tf.storage import read_manifest
from rd_tf.training.checkpoints import list_checkpoints, load_checkpoint

# Of a run: the seconds and the memory it took (and so the checksum), and what it printed and drew on the way.
_MANIFEST_MAY_DIFFER = {"seconds", "peak_memory_bytes", "manifest_sha256"}
_HISTORY_MAY_DIFFER = "seconds/"
_NOT_BY_BYTES = {run_directory.MANIFEST, run_directory.HISTORY, run_directory.TENSORBOARD}
# A teacher's lists come after it, and are artefacts of their own.
_LISTS = "top_k"
# A finished run is not read by its checkpoints; that they go is a matter of leftovers.
_NOT_COMPARED = {run_directory.LOG, run_directory.CHECKPOINT, _LISTS, *_NOT_BY_BYTES}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of artefact.

    Attributes:
        is_whole: takes the path of one that exists; false where nothing finished stands there, as readers see it.
            Raises any exception where something half-written stands under a final name.
        differences: takes two paths, both whole; in words, what differs that must not.
        differences_after_kill: the same, where the first one's command did not end.
    """

    is_whole: Callable[[Path], bool]
    differences: Callable[[Path, Path], list[str]]
    differences_after_kill: Callable[[Path, Path], list[str]]


def names(directory: Path) -> set[str]:
    """Every file below, relative, without locks."""
    paths = (path for path in directory.rglob("*") if not path.is_dir() and path.name != ".lock")
    return {str(path.relative_to(directory)) for path in paths}


def file_differences(one: Path, other: Path) -> list[str]:
    """Files that only one of two directories has, and those with other bytes."""
    ours, theirs = names(one), names(other)
    unequal = [name for name in ours & theirs if not filecmp.cmp(one / name, other / name, shallow=False)]
    return sorted([f"{name} is in one only" for name in ours ^ theirs] + [f"{name} differs" for name in unequal])


def is_whole_dataset(path: Path) -> bool:
    """Reads all of it and checks its fingerprint."""
    load_dataset(path)
    return True


def is_whole_run(path: Path) -> bool:
    """A finished run has a model and metrics; of an unfinished one each file that has its name must be readable."""
    if (path / run_directory.METRICS).exists():
        read_manifest(path / run_directory.METRICS, {"split": str, "metrics": dict})
    if (path / run_directory.PER_USER).exists():
        pq.read_table(path / run_directory.PER_USER)
    if (path / run_directory.HISTORY).exists():
        _history(path)
    if (path / run_directory.WEIGHTS).exists():
        import h5py

        h5py.File(path / run_directory.WEIGHTS).close()
    if not run_directory.is_finished_run(path):
        for checkpoint in list_checkpoints(path / run_directory.CHECKPOINT):
            load_checkpoint(checkpoint)
        return False
    from rd_tf.models.registry import load_model

    load_model(path)
    for name in (run_directory.METRICS, run_directory.PER_USER, run_directory.HISTORY, run_directory.FLAGS):
        (path / name).stat()
    return True


def run_differences(one: Path, other: Path) -> list[str]:
    """Weights, flags, metrics and users' metrics by their bytes, manifest, history and scalars."""
    found = [line for line in file_differences(one, other) if line.split()[0].split("/")[0] not in _NOT_COMPARED]
    if _history(one) != _history(other):
        found.append(f"{run_directory.HISTORY} differs")
    ours, theirs = (read_manifest(path / run_directory.MANIFEST, {}) for path in (one, other))
    unequal = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    found += [f"{run_directory.MANIFEST}: {name} differs" for name in unequal if name not in _MANIFEST_MAY_DIFFER]
    if scalars(one / run_directory.TENSORBOARD) != scalars(other / run_directory.TENSORBOARD):
        found.append(f"{run_directory.TENSORBOARD}: scalars differ")
    return found


def _history(run: Path) -> list[dict[str, str]]:
    with open(run / run_directory.HISTORY, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith(_HISTORY_MAY_DIFFER)} for row in rows]


def scalars(board: Path) -> dict[tuple[str, int], bytes]:
    """What TensorBoard shows of a run: (tag, step) -> value, the last one written, without seconds."""
    import tensorflow as tf

    found = {}
    for path in sorted(board.iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name in ("scalars", "") and not value.tag.startswith("seconds/"):
                    found[value.tag, event.step] = value.tensor.SerializeToString(deterministic=True)
    return found


def is_whole_cache(path: Path) -> bool:
    """Checks the arrays against the sums in the manifest."""
    from rd_tf.data.teacher_lists import CacheKey, load_cache_manifest, load_teacher_cache

    manifest = load_cache_manifest(path)
    key = CacheKey(**{field.name: manifest[field.name] for field in dataclasses.fields(CacheKey)})
    load_teacher_cache(path, key, manifest["k"])
    return True


def is_whole_export(path: Path) -> bool:
    """Runs every version by TensorFlow's C++ loader, as tensorflow_model_server does."""
    found = [version for paths in _versions(path).values() for version in paths]
    for version in found:
        answers(version)
    return bool(found)


def export_differences(one: Path, other: Path) -> list[str]:
    """Of every model the highest version, its files and its answers; the files beside the models."""
    return [*_beside_models(one, other), *_model_differences(one, other), *_version_counts(one, other)]


def export_differences_after_kill(one: Path, other: Path) -> list[str]:
    """Files beside the models may be missing, as they come after the version, and an old version may still be there."""
    differ = [line for line in _beside_models(one, other) if line.endswith(" differs")]
    return differ + _model_differences(one, other)


def _beside_models(one: Path, other: Path) -> list[str]:
    return [line for line in file_differences(one, other) if "/" not in line.split()[0]]


def _model_differences(one: Path, other: Path) -> list[str]:
    from rd_tf.serving.publishing import are_equal_versions

    found, theirs = [], _versions(other)
    for model, paths in _versions(one).items():
        if model not in theirs:
            return [f"{model} is another model"]
        if not are_equal_versions(paths[-1], theirs[model][-1]):
            found += [f"{model}: {line}" for line in file_differences(paths[-1], theirs[model][-1])]
        if answers(paths[-1]) != answers(theirs[model][-1]):
            found.append(f"{model}: answers differ")
    return found


def _version_counts(one: Path, other: Path) -> list[str]:
    ours, theirs = ({model: len(paths) for model, paths in _versions(path).items()} for path in (one, other))
    return [] if ours == theirs else [f"numbers of versions differ: {ours}, {theirs}"]


def _versions(exports: Path) -> dict[str, list[Path]]:
    from rd_tf.serving.publishing import versions

    return {path.name: versions(path) for path in exports.iterdir() if path.is_dir() and versions(path)}


def answers(version: Path) -> list[dict[str, str]]:
    """The answers to the version's own warm-up requests: output -> dtype and every digit of its values."""
    # A process of its own with TensorFlow in it, so it is asked once.
    files = tuple(sorted((name, (version / name).stat().st_mtime_ns) for name in names(version)))
    return _answers(version, files)


@functools.cache
def _answers(version: Path, files: tuple[tuple[str, int], ...]) -> list[dict[str, str]]:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from rd_tf.serving.publishing import WARMUP_FILE
    from rd_tf.serving.savedmodel_check import run_signatures

    asked = []
    for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        for name, array in inputs.items():
            if array.dtype == object:
                inputs[name] = np.array([text.decode() for text in array.ravel()], object).reshape(array.shape)
        asked.append((request.model_spec.signature_name or "serving_default", inputs))
    found = run_signatures(version, asked)
    return [{name: f"{array.dtype} {array.tolist()}" for name, array in answer.items()} for answer in found]


def is_whole_report(path: Path) -> bool:
    """Reads a pipeline's `report.json`."""
    read_manifest(path, {"roles": dict, "export": str})
    return True


def report_differences(one: Path, other: Path) -> list[str]:
    """What two pipelines' `report.json` say, without the seconds of the trainings."""
    ours, theirs = (read_manifest(path, {"roles": dict}) for path in (one, other))
    for report in (ours, theirs):
        for role in report["roles"].values():
            role.pop("seconds", None)
    return [f"{name} differs" for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


KINDS = {
    "dataset": Kind(is_whole_dataset, file_differences, file_differences),
    "run": Kind(is_whole_run, run_differences, run_differences),
    "cache": Kind(is_whole_cache, file_differences, file_differences),
    "exports": Kind(is_whole_export, export_differences, export_differences_after_kill),
    "report": Kind(is_whole_report, report_differences, report_differences),
}
