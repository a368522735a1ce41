"""What a run leaves on disk, by name; every command reads it from here."""

import importlib.metadata
import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any

from rd_tf import plugins
from rd_tf.flag_definitions import is_protocol
from rd_tf.storage import InputError, json_sha256, read_manifest, write_json

FLAGS = "flags.cfg"
METRICS = "metrics.json"
HISTORY = "history.csv"
WEIGHTS = "model.weights.h5"
# TensorBoard names a run by the directory of its events.
EVENTS = "events.out.tfevents.*"
LOG = "log.txt"
CHECKPOINT = "checkpoint"
PER_USER = "per_user.parquet"
MANIFEST = "manifest.json"
_REQUIRED = {
    "split": str,
    "dataset.fingerprint": str,
    "model.class": str,
    "model.config": dict,
    "model.dtype_policy": str,
    "model.parameters": int,
    "model.fingerprint": str,
}
# Flags that say where or how fast, not what: a finished run is the same run whatever they were.
# The dataset and the teacher are compared by their fingerprints.
NO_PART_OF_THE_RESULT = {
    "run_dir",
    "dataset",
    "teacher",
    "force",
    "steps_per_call",
    "threads_per_operation",
    "block_size",
    "checkpoint_minutes",
    # Replicas take the steps that one device would take, up to rounding.
    "strategy",
    "replicas",
    # Says where the ranker and the losses come from, which are compared by their names.
    "import_module",
}
# What a training without a teacher does not look at.
DISTILLATION_FLAGS = (
    "k",
    "mask",
    "distillation_loss",
    "alpha",
    "position_temperature",
    "discrepancy_sharpness",
    "discrepancy_start_epoch",
    "score_temperature",
    "score_bias",
    "list_samples",
    "popularity_groups",
    "rank_samples",
    "exact_rank",
    "renormalize_weights",
)
_CHECKSUM = "manifest_sha256"
_PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "pyarrow")


def is_finished_run(directory: str | os.PathLike[str]) -> bool:
    """Whether a run ended there: its manifest is the last thing a run writes."""
    return (Path(directory) / MANIFEST).is_file()


def load_run_manifest(directory: str | os.PathLike[str], flag: str = "run_dir") -> dict[str, Any]:
    """Reads the manifest of a finished run.

    Args:
        directory: the run directory.
        flag: the flag that named it, for the message.

    Raises:
        InputError: the directory is missing, the run has not finished, or the manifest is no run's, damaged or altered.
    """
    if not directory:
        raise InputError(f"--{flag} is empty; name a run directory")
    if not Path(directory).is_dir():
        raise InputError(f"--{flag}={directory} is not a directory; train a model there with python -m rd_tf.train")
    if not is_finished_run(directory):
        raise InputError(f"--{flag}={directory} holds no finished run; finish it with python -m rd_tf.train")
    path = Path(directory) / MANIFEST
    manifest = read_manifest(path, _REQUIRED)
    # Runs of earlier versions have no checksum.
    if manifest.get(_CHECKSUM, _checksum(manifest)) != _checksum(manifest):
        raise InputError(f"{path} is not as its run wrote it; restore it or train the model again")
    for name, is_usable in (
        ("split", is_protocol(manifest["split"])),
        ("flags", isinstance(manifest.get("flags", {}), dict)),
        ("teacher", isinstance(manifest.get("teacher"), dict | None)),
    ):
        if not is_usable:
            raise InputError(f"{path} is damaged (no usable {name!r}); restore it or train the model again")
    return manifest


def write_run_manifest(directory: str | os.PathLike[str], manifest: dict[str, Any]) -> dict[str, Any]:
    """Writes the manifest that ends a run, with a checksum of itself, and returns what it holds then.

    Args:
        directory: the run directory.
        manifest: JSON values.
    """
    manifest = {**manifest, _CHECKSUM: _checksum(manifest)}
    write_json(Path(directory) / MANIFEST, manifest)
    return manifest


def _checksum(manifest: dict[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != _CHECKSUM}
    return json_sha256(rest)


def flags_without_part(flags: dict[str, Any]) -> set[str]:
    """Names of the flags that have no part in what a training with these flags results in, or are compared otherwise.

    Args:
        flags: of a training; `model` and `teacher` decide.
    """
    unused = plugins.flags_of_others(flags["model"], flags["ranking_loss"], flags["distillation_loss"])
    return NO_PART_OF_THE_RESULT | unused | set(() if flags["teacher"] else DISTILLATION_FLAGS)


def environment() -> dict[str, Any]:
    """Where and with what this process runs: git revision, package versions, machine (JSON values)."""
    return {
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
    }


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
