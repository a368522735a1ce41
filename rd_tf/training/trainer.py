"""The training loop: epochs of several steps a call, under any tf.distribute strategy."""

import dataclasses
import time
from collections.abc import Generator, Iterator

import tensorflow as tf

from rd_tf.data.batches import TrainingBatches
from rd_tf.errors import InputError
from rd_tf.progress import progress_bar
from rd_tf.training.step import REPORTED, TrainStep


@dataclasses.dataclass(frozen=True)
class EpochReport:
    """What an epoch did.

    Attributes:
        epoch: from 1.
        means: mean over the epoch's steps of each of `REPORTED`.
        seconds: wall time of the epoch's steps.
    """

    epoch: int
    means: dict[str, float]
    seconds: float


class Trainer:
    """Trains epoch by epoch; between epochs the caller may look at the model.

    A loop of its own rather than `Model.fit`: the data are a function of the step number, so that replicas share one
    global batch exactly, and `Model.fit` fails under MultiWorkerMirroredStrategy in Keras 3.15.

    Args:
        step: computes losses and updates the model.
        batches: the data; with a distillation that estimates ranks, it has a rank sampler.
        strategy: where it runs; model and optimizer were made in its scope.
        steps_per_call: steps that run in one call of the graph.
    """

    def __init__(
        self, step: TrainStep, batches: TrainingBatches, strategy: tf.distribute.Strategy, steps_per_call: int
    ) -> None:
        self._step = step
        self._batches = batches
        self._strategy = strategy
        self._steps_per_call = steps_per_call

        @tf.function
        def run(iterator: tf.data.Iterator, steps: tf.Tensor, with_discrepancy: bool) -> tf.Tensor:
            total = tf.zeros(len(REPORTED))
            for _ in tf.range(steps):
                parts = strategy.run(step, args=(next(iterator), with_discrepancy))
                total += strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)
            return total

        self._run = run

    def epochs(self, count: int) -> Generator[EpochReport, None, None]:
        """Trains `count` epochs and yields after each; whoever stops early closes the generator.

        Raises:
            InputError: the loss is not finite.
        """
        distillation = self._step.distillation
        # Before w^b takes over nobody asks for the student's rank, so no rank samples are drawn either.
        change = count if distillation is None else min(distillation.discrepancy_start_epoch, count)
        plain = dataclasses.replace(self._batches, rank_sampler=None)
        yield from self._phase(plain, 0, change, False)
        yield from self._phase(self._batches, change, count, True)

    def _phase(self, batches: TrainingBatches, first: int, last: int, with_discrepancy: bool) -> Iterator[EpochReport]:
        if first >= last:
            return
        steps = batches.steps_per_epoch
        make = batches.input_function(first * steps, last * steps)
        iterator = iter(self._strategy.distribute_datasets_from_function(make))
        try:
            for epoch in range(first, last):
                begin = time.monotonic()
                means = self._epoch(iterator, epoch, steps, with_discrepancy)
                self._step.finish_epoch()
                yield EpochReport(epoch + 1, means, time.monotonic() - begin)
        finally:
            # Its threads run Python to read the windows, and must not while the interpreter shuts down after an error.
            del iterator

    def _epoch(
        self, iterator: Iterator[dict[str, tf.Tensor]], epoch: int, steps: int, with_discrepancy: bool
    ) -> dict[str, float]:
        total = tf.zeros(len(REPORTED))
        with progress_bar(f"epoch {epoch + 1}", steps, "steps") as advance:
            for done in range(0, steps, self._steps_per_call):
                now = min(self._steps_per_call, steps - done)
                total += self._run(iterator, tf.constant(now), with_discrepancy)
                if not bool(tf.reduce_all(tf.math.is_finite(total))):
                    raise InputError(
                        f"the loss is not finite in epoch {epoch + 1}, before step {done + now} of {steps}; "
                        "use a smaller --learning_rate"
                    )
                advance(now)
        return dict(zip(REPORTED, (total / steps).numpy().tolist(), strict=True))
