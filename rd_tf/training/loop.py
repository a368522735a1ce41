"""The commands' training loop: epochs of several steps a call under any strategy, with looks and checkpoints between.

It takes `RankingDistiller.step`, as Keras' `fit` does. It is no `fit` since a command promises what `fit` cannot do: in
Keras 3.15 it fails under MultiWorkerMirroredStrategy, takes no several steps a call with sparse gradients on replicas,
and neither stops nor goes on within an epoch.
"""

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import NoReturn

import numpy as np
import tensorflow as tf

from rd_tf.data.batches import TrainingBatches
from rd_tf.evaluation.evaluator import Evaluation, Evaluator
from rd_tf.flag_definitions import CHOOSING_SPLITS
from rd_tf.runtime import StoppedError, StopRequest, progress_bar
from rd_tf.storage import InputError
from rd_tf.training.callbacks import ListOverlap, TensorBoardWriter
from rd_tf.training.checkpoints import Checkpointer, Position, RunState
from rd_tf.training.config import TrainingConfig
from rd_tf.training.distiller import REPORTED, RankingDistiller
from rd_tf.training.optimizers import optimizer_scalars
from rd_tf.training.workers import Workers


@dataclasses.dataclass(frozen=True)
class EpochReport:
    """What an epoch did.

    Attributes:
        epoch: from 1.
        means: mean over the epoch's steps of each of `REPORTED`.
        seconds: wall time of the epoch's steps.
        end: the place after its last step, from which it can be looked at again.
    """

    epoch: int
    means: dict[str, float]
    seconds: float
    end: Position


_SECONDS_A_CALL = 2.0
# Called between two calls; told whether any worker wants to stop.
AfterCall = Callable[[Position, bool], None]


class Trainer:
    """Trains epoch by epoch; between epochs the caller may look at the model.

    Args:
        distiller: compiled; its `step` is what a step does.
        batches: the data; where the losses ask for rank samples, it has a rank sampler.
        strategy: where it runs; model and optimizer were made in its scope.
        steps_per_call: steps that run in one call of the graph, at most; fewer where they take long, since nobody can
            stop a training within a call.
    """

    def __init__(
        self,
        distiller: RankingDistiller,
        batches: TrainingBatches,
        strategy: tf.distribute.Strategy,
        steps_per_call: int,
    ) -> None:
        self._distiller = distiller
        self._batches = batches
        self._strategy = strategy
        self._steps_per_call = steps_per_call
        # The first call, which traces the graph, tells nothing.
        self._most_steps = 1

        def one_step(iterator: tf.data.Iterator, with_student_rank: bool) -> tf.Tensor:
            parts = strategy.run(distiller.step, args=(next(iterator), with_student_rank))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

        def run_here(iterator: tf.data.Iterator, steps: tf.Tensor, with_student_rank: bool) -> tf.Tensor:
            def step(done: tf.Tensor, sums: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
                return done + 1, sums.write(done, one_step(iterator, with_student_rank))

            sums = tf.TensorArray(tf.float32, steps, element_shape=[len(REPORTED)])
            return tf.while_loop(lambda done, _: done < steps, step, (0, sums))[1].stack()

        # Without AutoGraph, whose files stay behind where a process is killed.
        one_call = tf.function(one_step, autograph=False)

        def run_on_replicas(iterator: tf.data.Iterator, steps: tf.Tensor, with_student_rank: bool) -> tf.Tensor:
            # Step by step: TensorFlow's collectives take the sparse gradients of one call to be of one length.
            return tf.stack([one_call(iterator, with_student_rank) for _ in range(int(steps))])

        is_alone = strategy.num_replicas_in_sync == 1
        self._run = tf.function(run_here, autograph=False) if is_alone else run_on_replicas

        def mean(values: tf.Tensor) -> tf.Tensor:
            sums = strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(values,)), axis=None)
            return sums / strategy.num_replicas_in_sync

        self._mean = tf.function(mean, autograph=False)

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
        # Before the student's ranks are asked for no samples are drawn for them either.
        distiller, change = self._distiller, min(self._distiller.student_rank_from_epoch, count)
        if "student_rank" not in distiller.needs:
            change = count
        plain = self._batches
        if "sampled_logits" not in distiller.needs:
            plain = dataclasses.replace(self._batches, rank_sampler=None)
        for batches, first, last, with_student_rank in (
            (plain, 0, change, False),
            (self._batches, change, count, True),
        ):
            begin = start if start.epoch >= first else Position(first)
            yield from self._phase(batches, begin, last, with_student_rank, after_call, wants_stop)

    def _phase(
        self,
        batches: TrainingBatches,
        start: Position,
        last: int,
        with_student_rank: bool,
        after_call: AfterCall,
        wants_stop: Callable[[], bool],
    ) -> Iterator[EpochReport]:
        if start.epoch >= last:
            return
        steps, stops = batches.steps_per_epoch, False
        make = batches.input_function(start.epoch * steps + start.step, last * steps)
        iterator = iter(self._strategy.distribute_datasets_from_function(make))
        try:
            for epoch in range(start.epoch, last):
                position = start if epoch == start.epoch else Position(epoch)
                with progress_bar(f"epoch {epoch + 1}", steps, "steps") as advance:
                    while position.step < steps:
                        before = position.step
                        position, stops = self._call(iterator, position, steps, with_student_rank, wants_stop())
                        advance(position.step - before)
                        if position.step < steps:
                            after_call(position, stops)
                self._distiller.finish_epoch()
                # In float32, as the sums are.
                means = (np.asarray(position.total, np.float32) / np.float32(steps)).tolist()
                yield EpochReport(epoch + 1, dict(zip(REPORTED, means, strict=True)), position.seconds, position)
                after_call(Position(epoch + 1), stops)
        finally:
            # Its threads run Python to read the windows, and must not while the interpreter shuts down after an error.
            del iterator

    def _call(
        self, iterator: Iterator[dict[str, tf.Tensor]], at: Position, steps: int, with_student_rank: bool, stop: bool
    ) -> tuple[Position, bool]:
        begin = time.monotonic()
        now = min(self._steps_per_call - at.step % self._steps_per_call, self._most_steps, steps - at.step)
        sums = self._run(iterator, tf.constant(now), with_student_rank).numpy()
        # What one worker wants, all do, after the same step; and their next calls have as many steps.
        stops, seconds = self._mean(tf.constant([float(stop), time.monotonic() - begin])).numpy().tolist()
        self._most_steps = max(1, int(now * _SECONDS_A_CALL / seconds))
        not_finite = np.flatnonzero(~np.isfinite(sums).all(1))
        if len(not_finite):
            raise InputError(
                f"the loss is not finite in epoch {at.epoch + 1}, step {at.step + int(not_finite[0]) + 1} of {steps}; "
                "use a smaller --learning_rate"
            )
        # One after another, so that sums are rounded the same way wherever calls end.
        total = np.add.accumulate(np.concatenate([np.asarray([at.total], np.float32), sums]))[-1].tolist()
        return Position(at.epoch, at.step + now, tuple(total), at.seconds + time.monotonic() - begin), stops > 0


_HISTOGRAMS = 10
# Letters that a line of the log has at most.
_LINE = 100


@dataclasses.dataclass(frozen=True)
class Fit:
    """Trains a run's epochs, looks at them and keeps checkpoints.

    Attributes:
        trainer: trains.
        state: model, optimizer, history and best epoch; restored already.
        evaluator: of the run's split; None where it holds nothing out.
        overlap: with the teacher's lists, or None.
        checkpointer: keeps checkpoints.
        workers: who trains together.
        board: where this worker writes what TensorBoard shows, or None.
        config: how to train.
        k: length of the teacher's lists, or 0.
        log: takes lines.
    """

    trainer: Trainer
    state: RunState
    evaluator: Evaluator | None
    overlap: ListOverlap | None
    checkpointer: Checkpointer
    workers: Workers
    board: TensorBoardWriter | None
    config: TrainingConfig
    k: int
    log: Callable[[str], None]

    def run(self, start: Position) -> int:
        """Trains from a position to the last epoch.

        Returns:
            The epoch whose weights the model now has.

        Raises:
            InputError: the loss is not finite, or another worker is gone.
            SystemExit: SIGTERM or SIGINT came; a checkpoint is written.
        """
        epochs, best = self.config.epochs, self.state.best
        reached = start

        def where() -> str:
            return f"in epoch {min(reached.epoch + 1, epochs)}, after step {reached.step}"

        with StopRequest() as request, self.workers.explain_loss(where):

            def after_call(position: Position, stops: bool) -> None:
                nonlocal reached
                reached = position
                if not stops:
                    self.checkpointer.save_if_due(position)
                    return
                stop(position)

            def stop(position: Position) -> NoReturn:
                self.checkpointer.save(position)
                self.log(f"stopped {where()}; the same command goes on from there")
                sys.exit(request.exit_code if request.signal else 128 + signal.SIGTERM)

            last = start.epoch
            if not self._is_overdue():
                reports = self.trainer.epochs(epochs, start, after_call, lambda: bool(request.signal))
                with contextlib.closing(reports):
                    for report in reports:
                        reached = report.end
                        try:
                            self._look(report, request)
                        except StoppedError:
                            stop(report.end)
                        last = report.epoch
                        if self._is_overdue():
                            self.log(f"stopped early: no better MAP since epoch {best.epoch}")
                            break
            if best.epoch and best.epoch != last:
                self.state.model.set_weights(best.weights)
        return best.epoch or last

    def _is_overdue(self) -> bool:
        """Whether the last validations brought nothing better for as long as early stopping waits."""
        best = self.state.best.epoch
        since = sum(1 for row in self.state.history.rows if "validation/map" in row and row["epoch"] > best)
        return bool(best) and 0 < self.config.early_stopping <= since

    def evaluate(self) -> Evaluation:
        """Evaluates the model as it is, spread over the workers."""
        assert self.evaluator is not None
        with self.workers.explain_loss(lambda: "in the evaluation"):
            return self.evaluator.evaluate(self.state.model)

    def _look(self, report: EpochReport, request: StopRequest) -> None:
        """Measures, writes down and says what there is to say of an epoch.

        Raises:
            StoppedError: the process is asked to stop while it measures; nothing is written down then.
        """
        # Workers beside each other have to stop at the same place.
        measuring = request.at_once if self.workers.count == 1 else contextlib.nullcontext
        config, model = self.config, self.state.model
        epoch, epochs, every = report.epoch, config.epochs, config.validate_every or config.epochs
        looks = epoch == epochs or epoch % every == 0
        values = {f"train/{name}": value for name, value in report.means.items()}
        if self.overlap is None:
            values = {"train/loss": report.means["loss"], "train/ranking_loss": report.means["ranking_loss"]}
        line = f"epoch {epoch:3d}  {report.seconds:6.1f} s  loss {report.means['loss']:.4f}"
        if looks and self.overlap is not None:
            with measuring():
                values[f"distillation/overlap@{self.k}"] = self.overlap.measure()
        # The test part is read for the final number only, so no epoch is looked at with it.
        if looks and config.split in CHOOSING_SPLITS and self.evaluator is not None:
            begin = time.monotonic()
            with measuring():
                found = self.evaluator.evaluate(model).metrics
            values.update({f"validation/{name}": value for name, value in found.items()})
            values["seconds/validation"] = time.monotonic() - begin
            line = metrics_line(found, f"{line}  validation ")
            self.state.best.offer(epoch, found["map"], model.get_weights)
        values["seconds/epoch"] = report.seconds
        values |= optimizer_scalars(self.state.optimizer)
        if self.board is not None:
            if epoch == epochs or epoch % max(1, epochs // _HISTOGRAMS) == 0:
                self.board.histograms(epoch, model)
            self.board.scalars(epoch, values)
        self.state.history.add({"epoch": epoch, **values})
        self.log(line)


def metrics_line(metrics: dict[str, float], begin: str, after_map: str = "") -> str:
    """A line of the log with the MAP and as many more metrics as it has room for; metrics.json has all.

    Args:
        metrics: by name.
        begin: what the line begins with.
        after_map: what stands behind the MAP.
    """
    line = f"{begin}map {metrics['map']:.4f}{after_map}"
    for name, value in metrics.items():
        more = f"  {name} {value:.4f}"
        if name.startswith(("precision@", "ndcg_tang@")) and len(line + more) <= _LINE:
            line += more
    return line
