"""Checkpoints of a training: written, found, gone on from."""

import contextlib
import csv
import dataclasses
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rd_tf.storage import (
    InputError,
    Kind,
    atomic_directory,
    file_sha256,
    json_sha256,
    open_npy,
    read_manifest,
    remove_all_leftovers,
    remove_whole,
    require,
    write_json,
    write_text,
)
from rd_tf.training.distiller import REPORTED
from rd_tf.training.workers import Workers


class BestEpoch:
    """Remembers the weights of the best epoch.

    Attributes:
        epoch: from 1; 0 before the first validation.
        map: its validation MAP.
        weights: the model's at its end; empty before the first validation.
    """

    def __init__(self) -> None:
        self.restore(0, 0.0, [])

    def restore(self, epoch: int, map: float, weights: list[np.ndarray]) -> None:
        """Sets what an earlier training remembered; arguments as the attributes."""
        self.epoch, self.map, self.weights = epoch, map, weights

    def offer(self, epoch: int, map: float, weights: Callable[[], list[np.ndarray]]) -> None:
        """Takes an epoch if it is better than all before."""
        if not self.epoch or map > self.map:
            self.restore(epoch, map, weights())


class History:
    """Collects epochs and keeps `history.csv` up to date.

    Args:
        path: the file; None writes none.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Adds an epoch and rewrites the file; columns that only some epochs have stay empty in the others."""
        self.rows.append(row)
        if self._path is None:
            return
        names = list(dict.fromkeys(name for each in self.rows for name in each))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in each.items()}
            for each in self.rows
        )
        write_text(self._path, text.getvalue())


@dataclasses.dataclass(frozen=True)
class Position:
    """A place between two calls of the training graph.

    Attributes:
        epoch: finished epochs.
        step: steps done of the next one.
        total: sums over these steps of each of `REPORTED`, float32 numbers.
        seconds: wall time of these steps.
    """

    epoch: int = 0
    step: int = 0
    total: tuple[float, ...] = (0.0,) * len(REPORTED)
    seconds: float = 0.0


FORMAT = 1
MANIFEST = "manifest.json"
# The newest one, and the one before it in case the newest is damaged.
_KEPT = 2
_REQUIRED = {"format": int, "step": int, "arrays": dict, "progress": dict, "run": dict, "sha256": str}


_PROGRESS: dict[str, Kind] = {
    "best.epoch": int,
    "best.map": int | float,
    "history": list,
    "position.epoch": int,
    "position.step": int,
    "position.total": list,
    "position.seconds": int | float,
}


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
    remove_all_leftovers(directory)
    with atomic_directory(path, replace=True) as temporary:
        described = {}
        for number, (name, array) in enumerate(arrays):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"{name} is not finite")
            file = f"{number:03d}.npy"
            np.save(temporary / file, array, allow_pickle=False)
            described[name] = {"file": file, "sha256": file_sha256(temporary / file)}
        manifest = {"format": FORMAT, "step": step, "arrays": described, "progress": progress, "run": run}
        write_json(temporary / MANIFEST, {**manifest, "sha256": json_sha256(manifest)})
    for old in list_checkpoints(directory)[_KEPT:]:
        remove_whole(old)


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
    manifest = read_manifest(path / MANIFEST, _REQUIRED)
    if manifest["format"] != FORMAT:
        raise InputError(f"{path / MANIFEST} has format {manifest['format']}, not {FORMAT}")
    if manifest.pop("sha256") != json_sha256(manifest):
        raise InputError(f"{path / MANIFEST} is not what was written")
    arrays = {}
    for name, described in manifest["arrays"].items():
        try:
            file = path / described["file"]
            if file_sha256(file) != described["sha256"]:
                raise InputError(f"{file} is not what {MANIFEST} beside it says")
            arrays[name] = np.array(open_npy(file))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: {name} cannot be read ({str(error).splitlines()[0]})") from None
    require(manifest["progress"], _PROGRESS, path / MANIFEST)
    position = manifest["progress"]["position"]
    total = position["total"]
    if set(position) != {field.name for field in dataclasses.fields(Position)} or not (
        len(total) == len(REPORTED) and all(isinstance(number, int | float) for number in total)
    ):
        raise InputError(f"{path / MANIFEST} does not tell a position")
    return Checkpoint(manifest["step"], arrays, manifest["progress"])


def checkpointed_run(directory: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the newest readable manifest of a run's checkpoints says of the run; None where there is none."""
    for path in list_checkpoints(directory):
        with contextlib.suppress(InputError):
            return dict(read_manifest(path / MANIFEST, _REQUIRED)["run"])
    return None


_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class RunState:
    """All that a run consists of while it trains.

    Attributes:
        model: the ranker.
        optimizer: built for it.
        history: epochs so far.
        best: the best epoch so far.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    history: History
    best: BestEpoch

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every number that training depends on, by name."""
        for name, variable in self._variables():
            yield name, np.asarray(keras.ops.convert_to_numpy(variable))
        for number, weight in enumerate(self.best.weights):
            yield f"best weight {number}", weight

    def restore(self, checkpoint: Checkpoint) -> None:
        """Sets everything to a checkpoint's values.

        Raises:
            InputError: the checkpoint holds other arrays; nothing is changed then.
        """
        arrays, best = dict(checkpoint.arrays), checkpoint.progress["best"]
        count = len(self.model.weights) if best["epoch"] else 0
        weights = [arrays.pop(name) for name in (f"best weight {number}" for number in range(count)) if name in arrays]
        variables = dict(self._variables())
        expected = {name: (tuple(variable.shape), variable.dtype) for name, variable in variables.items()}
        found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
        if len(weights) < count or expected != found:
            raise InputError("it holds other arrays than this version's")
        for name, variable in variables.items():
            variable.assign(arrays[name])
        self.best.restore(best["epoch"], best["map"], weights)
        self.history.rows[:] = checkpoint.progress["history"]

    def _variables(self) -> Iterator[tuple[str, keras.Variable]]:
        for number, variable in enumerate(self.model.variables):
            yield f"weight {number} {variable.name}", variable
        # Their names count the models that were made in the process before.
        for number, variable in enumerate(self.optimizer.variables):
            yield f"optimizer {number}", variable


class Checkpointer:
    """Keeps checkpoints of a run.

    Args:
        directory: of the checkpoints.
        minutes: between two of them; 0 writes one only where a run is asked to stop.
        run: JSON values that say which run this is.
        state: what is saved and restored.
        steps_per_epoch: steps of an epoch.
        workers: worker 0 writes, all read.
        log: takes lines.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        minutes: float,
        run: dict[str, Any],
        state: RunState,
        steps_per_epoch: int,
        workers: Workers,
        log: Callable[[str], None],
    ) -> None:
        self._directory, self._minutes, self._run, self._state = Path(directory), minutes, run, state
        self._steps_per_epoch, self._workers, self._log = steps_per_epoch, workers, log
        self._saved = time.monotonic()

    def restore(self) -> Position:
        """Goes back to the newest checkpoint that can be read; the beginning where there is none.

        Raises:
            InputError: the workers do not see the same checkpoints.
        """
        position, step = Position(), 0
        for path in list_checkpoints(self._directory):
            try:
                checkpoint = load_checkpoint(path)
                self._state.restore(checkpoint)
            except InputError as error:
                self._log(f"checkpoint {path} is damaged ({error}); falling back to the one before")
                continue
            saved = checkpoint.progress["position"]
            position, step = Position(**{**saved, "total": tuple(saved["total"])}), checkpoint.step
            self._log(f"resumed from {path}: {self._where(position)}")
            break
        sums = self._workers.sum(np.asarray([step, step * step], np.float64))
        if self._workers.count * sums[1] != sums[0] ** 2:
            raise InputError(
                f"the {self._workers.count} workers see different checkpoints in {self._directory} (this one: step "
                f"{step}); put --run_dir on a disk that all of them share"
            )
        return position

    def save_if_due(self, position: Position) -> None:
        """Writes a checkpoint if the last one is old enough."""
        if self._minutes and time.monotonic() - self._saved >= self._minutes * _SECONDS:
            self.save(position)

    def save(self, position: Position) -> None:
        """Writes a checkpoint.

        Raises:
            InputError: a weight is not finite; the checkpoints before stay.
        """
        if self._workers.is_chief:
            step = position.epoch * self._steps_per_epoch + position.step
            best = {"epoch": self._state.best.epoch, "map": self._state.best.map}
            progress = {"position": dataclasses.asdict(position), "history": self._state.history.rows, "best": best}
            try:
                save_checkpoint(self._directory, step, self._state.arrays(), progress, self._run)
            except InputError as error:
                raise InputError(f"{error} in {self._where(position)}; use a smaller --learning_rate") from None
        self._saved = time.monotonic()

    def _where(self, position: Position) -> str:
        return f"epoch {position.epoch + 1}, after step {position.step} of {self._steps_per_epoch}"
