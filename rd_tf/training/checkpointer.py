"""Saves an unfinished run every few minutes and finds its way back."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rd_tf.errors import InputError
from rd_tf.training.best_epoch import BestEpoch
from rd_tf.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from rd_tf.training.history import History
from rd_tf.training.strategies import Workers
from rd_tf.training.trainer import Position

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
