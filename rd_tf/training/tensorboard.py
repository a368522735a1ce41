"""What TensorBoard shows of a run."""

import os
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from rd_tf import command_line
from rd_tf.models.ranker import SequenceRanker


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
