"""The state of an unfinished run on disk: `checkpoint/<step>/` with one array a file and a manifest."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf import storage
from rd_tf.errors import InputError

FORMAT = 1
MANIFEST = "manifest.json"
# The newest one, and the one before it in case the newest is damaged.
_KEPT = 2
_REQUIRED = {"format": int, "step": int, "arrays": dict, "progress": dict, "run": dict, "sha256": str}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A state that was read back.

    Attributes:
        step: steps since the beginning of the run.
        arrays: by name.
        progress: JSON values, as they were saved.
    """

    step: int
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]


def save_checkpoint(
    directory: str | os.PathLike[str],
    step: int,
    arrays: Iterator[tuple[str, np.ndarray]],
    progress: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    """Writes a checkpoint, whole or not at all, and removes all but the newest two.

    Args:
        directory: of the run's checkpoints, held by this process.
        step: names it; one of this step that is there already stays.
        arrays: names and arrays, taken and written one after another, so that no second copy of all is in memory.
        progress: JSON values.
        run: JSON values that say which run it belongs to.

    Raises:
        InputError: an array of real numbers holds one that is not finite; the checkpoints before stay.
    """
    directory = Path(directory)
    path = directory / f"{step:012d}"
    if (path / MANIFEST).is_file():
        return
    storage.remove_all_leftovers(directory)
    with storage.atomic_directory(path, replace=True) as temporary:
        described = {}
        for number, (name, array) in enumerate(arrays):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"{name} is not finite")
            file = f"{number:03d}.npy"
            np.save(temporary / file, array, allow_pickle=False)
            described[name] = {"file": file, "sha256": storage.file_sha256(temporary / file)}
        manifest = {"format": FORMAT, "step": step, "arrays": described, "progress": progress, "run": run}
        storage.write_json(temporary / MANIFEST, {**manifest, "sha256": storage.json_sha256(manifest)})
    for old in list_checkpoints(directory)[_KEPT:]:
        storage.remove_whole(old)


def list_checkpoints(directory: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = (path for path in Path(directory).glob("*") if path.name.isdigit() and path.is_dir())
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        InputError: it is damaged.
    """
    path = Path(path)
    manifest = storage.read_manifest(path / MANIFEST, _REQUIRED)
    if manifest["format"] != FORMAT:
        raise InputError(f"{path / MANIFEST} has format {manifest['format']}, not {FORMAT}")
    if manifest.pop("sha256") != storage.json_sha256(manifest):
        raise InputError(f"{path / MANIFEST} is not what was written")
    arrays = {}
    for name, described in manifest["arrays"].items():
        try:
            file = path / described["file"]
            if storage.file_sha256(file) != described["sha256"]:
                raise InputError(f"{file} is not what {MANIFEST} beside it says")
            arrays[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: {name} cannot be read ({str(error).splitlines()[0]})") from None
    return Checkpoint(manifest["step"], arrays, manifest["progress"])


def checkpointed_run(directory: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the newest readable manifest of a run's checkpoints says of the run; None where there is none."""
    for path in list_checkpoints(directory):
        with contextlib.suppress(InputError):
            return dict(storage.read_manifest(path / MANIFEST, _REQUIRED)["run"])
    return None
