"""What watches a training: validation in `fit`, TensorBoard, the overlap with the teacher's lists."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from rd_tf import command_line, run_directory
from rd_tf.data.teacher_lists import ShardedArray
from rd_tf.data.windows import SplitData
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.flag_definitions import CHOOSING_SPLITS
from rd_tf.models.ranker import SequenceRanker
from rd_tf.teacher.scoring import TopK
from rd_tf.training.checkpoints import BestEpoch

_WINDOWS = 2048


class Validation(keras.callbacks.Callback):
    """Evaluates the ranker between epochs of `RankingDistiller.fit`, with all metrics of `rd_tf.evaluate` as `val_...`.

    Other callbacks that come after it in the list find the metrics in their logs, as `keras.callbacks.TensorBoard`.

    Args:
        every: epochs between two validations; the last epoch is validated, too.
        cutoffs: n, list lengths of the metrics.
        restore_best_weights: whether the ranker has the weights of the epoch with the best MAP in the end.
        patience: validations in a row without a better MAP after which training stops; 0 for none.
        block_size: users scored in one matrix product.

    Attributes:
        best_epoch: from 1; 0 before the first validation.
        best_map: its MAP.

    Raises:
        ValueError: a number out of range, or `fit` has data that are not split for validation: the test part is for the
            final number only.
    """

    def __init__(
        self,
        every: int = 1,
        cutoffs: Sequence[str | int] = (3, 5, 10, 20),
        restore_best_weights: bool = True,
        patience: int = 0,
        block_size: int = 1024,
    ) -> None:
        super().__init__()
        if every < 1 or patience < 0:
            raise ValueError(f"every must be at least 1 and patience at least 0; received {every} and {patience}")
        self.every, self.patience, self.restore_best_weights = every, patience, restore_best_weights
        self._best, self._waited = BestEpoch(), 0
        self._settings = cutoffs, block_size
        self._evaluator: Evaluator | None = None

    @property
    def best_epoch(self) -> int:
        return self._best.epoch

    @property
    def best_map(self) -> float:
        return self._best.map

    def set_data(self, data: SplitData) -> None:
        """Called by `fit` with the data that it trains on."""
        if data.protocol.part not in CHOOSING_SPLITS:
            raise ValueError(f"Validation needs data of .split('validation'); received the split {data.name!r}")
        self._data = data

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if not hasattr(self, "_data"):
            raise ValueError("Validation needs fit(data) with data of rd_tf.load_dataset(...).split('validation')")
        length = self.model.student.sequence_length
        self._evaluator = Evaluator(self._data, length, *self._settings)
        self._best, self._waited = BestEpoch(), 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert self._evaluator is not None
        if (epoch + 1) % self.every and epoch + 1 != self.params["epochs"]:
            return
        found = self._evaluator.evaluate(self.model.student).metrics
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in found.items()})
        self._best.offer(epoch + 1, found["map"], self.model.student.get_weights if self.restore_best_weights else list)
        self._waited = 0 if self._best.epoch == epoch + 1 else self._waited + 1
        if 0 < self.patience <= self._waited:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._best.weights:
            self.model.student.set_weights(self._best.weights)


class ListOverlap:
    """Overlap@K between the student's and the teacher's lists, on a fixed sample of training windows.

    Args:
        student: lists the student's best K items, masked as the teacher's lists are.
        teacher_items: `[windows, K] int32`.
        seed: of the sample.
    """

    def __init__(self, student: TopK, teacher_items: np.ndarray | ShardedArray, seed: int) -> None:
        rows = len(teacher_items)
        chosen = np.random.default_rng(seed).choice(rows, min(rows, _WINDOWS), replace=False)
        self._rows = np.sort(chosen)
        self._student = student
        self._teacher_items = np.asarray(teacher_items[self._rows])

    def measure(self) -> float:
        """Mean share of a teacher's list that is in the student's list for the same window, whatever the order."""
        items, _ = self._student.lists(self._rows)
        return float((items[:, :, None] == self._teacher_items[:, None, :]).any(1).mean())


class TensorBoardWriter:
    """Writes losses, metrics, histograms of the weights, the flags as text, and those that matter as hyperparameters.

    Args:
        directory: the run directory, whose name the run has in TensorBoard.
        flags: all flags of the run.
    """

    def __init__(self, directory: str | os.PathLike[str], flags: dict[str, Any]) -> None:
        self._writer = tf.summary.create_file_writer(str(Path(directory)))
        lines = "".join(f"    {line}\n" for line in command_line.flag_lines(flags).splitlines())
        with self._writer.as_default(step=0):
            tf.summary.text("flags", lines)
            left_out = run_directory.flags_without_part(flags)
            settings = {name: flags[name] for name in flags if name not in left_out}
            settings = {name: value for name, value in settings.items() if not isinstance(value, list)}
            map_ = f"{flags['split']}/map"
            hparams.hparams_config([hparams.HParam(name) for name in settings], [hparams.Metric(map_)])
            hparams.hparams(settings)

    def scalars(self, epoch: int, values: dict[str, float]) -> None:
        """Writes values by name; the part before the first "/" groups them."""
        with self._writer.as_default(step=epoch):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def histograms(self, epoch: int, model: SequenceRanker) -> None:
        """Writes the distribution of every weight."""
        with self._writer.as_default(step=epoch):
            for weight in model.trainable_variables:
                tf.summary.histogram(f"weights/{weight.name}", weight)

    def close(self) -> None:
        """Writes what is still in memory."""
        self._writer.close()
