"""What watches a training: TensorBoard, the overlap with the teacher's lists."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from rd_tf import command_line
from rd_tf.data.teacher_lists import ShardedArray
from rd_tf.models.ranker import SequenceRanker
from rd_tf.teacher.top_k import TopK

_WINDOWS = 2048


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
    """Writes losses, metrics, histograms of the weights, the flags as text and as hyperparameters.

    Args:
        directory: the run's TensorBoard directory.
        flags: all flags of the run.
    """

    def __init__(self, directory: str | os.PathLike[str], flags: dict[str, Any]) -> None:
        self._writer = tf.summary.create_file_writer(str(Path(directory)))
        lines = "".join(f"    {line}\n" for line in command_line.flag_lines(flags).splitlines())
        with self._writer.as_default(step=0):
            tf.summary.text("flags", lines)
            hparams.hparams({name: value for name, value in flags.items() if not isinstance(value, list)})

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
