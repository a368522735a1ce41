"""The training loop: epochs of several steps a call, under any tf.distribute strategy."""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import tensorflow as tf

from rd_tf.data.batches import TrainingBatches
from rd_tf.runtime import progress_bar
from rd_tf.storage import InputError
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


# Called between two calls; told whether any worker wants to stop.
AfterCall = Callable[[Position, bool], None]


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

        def one_step(iterator: tf.data.Iterator, with_discrepancy: bool) -> tf.Tensor:
            parts = strategy.run(step, args=(next(iterator), with_discrepancy))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

        def run_here(iterator: tf.data.Iterator, steps: tf.Tensor, with_discrepancy: bool) -> tf.Tensor:
            sums = tf.TensorArray(tf.float32, steps, element_shape=[len(REPORTED)])
            for done in tf.range(steps):
                sums = sums.write(done, one_step(iterator, with_discrepancy))
            return sums.stack()

        one_call = tf.function(one_step)

        def run_on_replicas(iterator: tf.data.Iterator, steps: tf.Tensor, with_discrepancy: bool) -> tf.Tensor:
            # Step by step: TensorFlow's collectives take the sparse gradients of one call to be of one length.
            return tf.stack([one_call(iterator, with_discrepancy) for _ in range(int(steps))])

        self._run = tf.function(run_here) if strategy.num_replicas_in_sync == 1 else run_on_replicas

        @tf.function
        def count_stops(stop: tf.Tensor) -> tf.Tensor:
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(stop,)), axis=None)

        self._count_stops = count_stops

    def epochs(
        self,
        count: int,
        start: Position | None = None,
        after_call: AfterCall = lambda position, stops: None,
        wants_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[EpochReport, None, None]:
        """Trains until `count` epochs are done and yields after each; whoever stops early closes the generator.

        Args:
            count: epochs.
            start: where an earlier training stopped; model and optimizer are as they were then.
            after_call: called after every call of the graph, and once the caller has done with an epoch.
            wants_stop: whether this worker wants to stop.

        Raises:
            InputError: the loss is not finite.
        """
        start = start or Position()
        distillation = self._step.distillation
        # Before w^b takes over nobody asks for the student's rank, so no rank samples are drawn either.
        change = count if distillation is None else min(distillation.discrepancy_start_epoch, count)
        plain = dataclasses.replace(self._batches, rank_sampler=None)
        for batches, first, last, with_discrepancy in (
            (plain, 0, change, False),
            (self._batches, change, count, True),
        ):
            begin = start if start.epoch >= first else Position(first)
            yield from self._phase(batches, begin, last, with_discrepancy, after_call, wants_stop)

    def _phase(
        self,
        batches: TrainingBatches,
        start: Position,
        last: int,
        with_discrepancy: bool,
        after_call: AfterCall,
        wants_stop: Callable[[], bool],
    ) -> Iterator[EpochReport]:
        if start.epoch >= last:
            return
        steps = batches.steps_per_epoch
        make = batches.input_function(start.epoch * steps + start.step, last * steps)
        iterator = iter(self._strategy.distribute_datasets_from_function(make))
        try:
            for epoch in range(start.epoch, last):
                position = start if epoch == start.epoch else Position(epoch)
                with progress_bar(f"epoch {epoch + 1}", steps, "steps") as advance:
                    while position.step < steps:
                        before = position.step
                        position, stops = self._call(iterator, position, steps, with_discrepancy, wants_stop())
                        advance(position.step - before)
                        if position.step < steps:
                            after_call(position, stops)
                self._step.finish_epoch()
                # In float32, as the sums are.
                means = (np.asarray(position.total, np.float32) / np.float32(steps)).tolist()
                yield EpochReport(epoch + 1, dict(zip(REPORTED, means, strict=True)), position.seconds)
                after_call(Position(epoch + 1), stops)
        finally:
            # Its threads run Python to read the windows, and must not while the interpreter shuts down after an error.
            del iterator

    def _call(
        self, iterator: Iterator[dict[str, tf.Tensor]], at: Position, steps: int, with_discrepancy: bool, stop: bool
    ) -> tuple[Position, bool]:
        begin = time.monotonic()
        # Calls end at the same steps wherever a training is resumed, so that sums are rounded the same way.
        now = min(self._steps_per_call - at.step % self._steps_per_call, steps - at.step)
        sums = self._run(iterator, tf.constant(now), with_discrepancy).numpy()
        # What one worker wants, all do, after the same step.
        stops = self._count_stops(tf.constant(float(stop)))
        not_finite = np.flatnonzero(~np.isfinite(sums).all(1))
        if len(not_finite):
            raise InputError(
                f"the loss is not finite in epoch {at.epoch + 1}, step {at.step + int(not_finite[0]) + 1} of {steps}; "
                "use a smaller --learning_rate"
            )
        total = tuple((np.asarray(at.total, np.float32) + sums.sum(0)).tolist())
        return Position(at.epoch, at.step + now, total, at.seconds + time.monotonic() - begin), bool(stops > 0)
