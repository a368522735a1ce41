"""All epochs of a run, from wherever it stands."""

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from rd_tf.evaluation.evaluator import Evaluation, Evaluator
from rd_tf.runtime import StopRequest
from rd_tf.training.callbacks import ListOverlap, TensorBoardWriter
from rd_tf.training.checkpoints import Checkpointer, RunState
from rd_tf.training.optimizers import optimizer_scalars
from rd_tf.training.trainer import EpochReport, Position, Trainer
from rd_tf.training.workers import Workers

_HISTOGRAMS = 10


@dataclasses.dataclass(frozen=True)
class Fit:
    """Trains a run's epochs, looks at them and keeps checkpoints.

    Attributes:
        trainer: trains.
        state: model, optimizer, history and best epoch; restored already.
        evaluator: of the run's split.
        overlap: with the teacher's lists, or None.
        checkpointer: keeps checkpoints.
        workers: who trains together.
        board: where this worker writes what TensorBoard shows, or None.
        flags: every flag of the run.
        log: takes lines.
    """

    trainer: Trainer
    state: RunState
    evaluator: Evaluator
    overlap: ListOverlap | None
    checkpointer: Checkpointer
    workers: Workers
    board: TensorBoardWriter | None
    flags: dict[str, Any]
    log: Callable[[str], None]

    def run(self, start: Position) -> int:
        """Trains from a position to the last epoch.

        Returns:
            The epoch whose weights the model now has.

        Raises:
            InputError: the loss is not finite, or another worker is gone.
            SystemExit: SIGTERM or SIGINT came; a checkpoint is written.
        """
        epochs, best = self.flags["epochs"], self.state.best
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
                self.checkpointer.save(position)
                self.log(f"stopped {where()}; the same command goes on from there")
                sys.exit(request.exit_code if request.signal else 128 + signal.SIGTERM)

            reports = self.trainer.epochs(epochs, start, after_call, lambda: bool(request.signal))
            with contextlib.closing(reports):
                for report in reports:
                    self._look(report)
            if best.epoch and best.epoch != epochs:
                self.state.model.set_weights(best.weights)
        return best.epoch or epochs

    def evaluate(self) -> Evaluation:
        """Evaluates the model as it is, spread over the workers."""
        with self.workers.explain_loss(lambda: "in the evaluation"):
            return self.evaluator.evaluate(self.state.model)

    def _look(self, report: EpochReport) -> None:
        """Measures, writes down and says what there is to say of an epoch."""
        flags, model = self.flags, self.state.model
        epoch, epochs, every = report.epoch, flags["epochs"], flags["validate_every"] or flags["epochs"]
        looks = epoch == epochs or epoch % every == 0
        values = {f"train/{name}": value for name, value in report.means.items()}
        if self.overlap is None:
            values = {"train/loss": report.means["loss"], "train/ranking_loss": report.means["ranking_loss"]}
        line = f"epoch {epoch:3d}  {report.seconds:6.1f} s  loss {report.means['loss']:.4f}"
        if looks and self.overlap is not None:
            values[f"distillation/overlap@{flags['k']}"] = self.overlap.measure()
        # The test part is read for the final number only, so no epoch is looked at with it.
        if looks and flags["split"] == "validation":
            begin = time.monotonic()
            found = self.evaluator.evaluate(model).metrics
            values.update({f"validation/{name}": value for name, value in found.items()})
            values["seconds/validation"] = time.monotonic() - begin
            line += "  validation " + metrics_line(found)
            self.state.best.offer(epoch, found["map"], model.get_weights)
        values["seconds/epoch"] = report.seconds
        values |= optimizer_scalars(self.state.optimizer)
        if self.board is not None:
            if epoch == epochs or epoch % max(1, epochs // _HISTOGRAMS) == 0:
                self.board.histograms(epoch, model)
            self.board.scalars(epoch, values)
        self.state.history.add({"epoch": epoch, **values})
        self.log(line)


def metrics_line(metrics: dict[str, float]) -> str:
    """The metrics that a line of the log shows."""
    first = [name for name in metrics if name.startswith(("precision@", "ndcg_tang@"))]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in ("map", *first))
