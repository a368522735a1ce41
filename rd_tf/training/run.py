"""A whole training run: from flags to a finished run directory."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rd_tf import command_line, run_directory
from rd_tf.data.batches import TrainingBatches
from rd_tf.data.windows import SplitData, open_dataset
from rd_tf.evaluation.evaluator import Evaluator, save_evaluation
from rd_tf.evaluation.held_out import left_out_line, users_line
from rd_tf.flag_definitions import protocol_of
from rd_tf.models.ranker import SequenceRanker
from rd_tf.models.registry import make_model, save_model
from rd_tf.runtime import RunLog, free_bytes, print_line
from rd_tf.storage import InputError, remove, write_text
from rd_tf.teacher.cache import find_teacher
from rd_tf.teacher.scoring import TopK
from rd_tf.training.callbacks import ListOverlap, TensorBoardWriter
from rd_tf.training.checkpoints import BestEpoch, Checkpointer, History, Position, RunState, list_checkpoints
from rd_tf.training.config import RunConfig
from rd_tf.training.distiller import RankingDistiller
from rd_tf.training.loop import Fit, Trainer, metrics_line
from rd_tf.training.optimizers import make_optimizer
from rd_tf.training.workers import Workers

# --score_temperature=0 in standard deviations of the scores of a list.
_SPREADS = 2.5


def train_run(directory: Path, flags: dict[str, Any], identity: dict[str, Any], workers: Workers) -> dict[str, Any]:
    """Trains, evaluates and fills a run directory, the manifest last.

    Args:
        directory: the run directory, held by worker 0. A checkpoint there is gone on from.
        flags: every flag of `rd_tf.train`.
        identity: JSON values that a checkpoint keeps to say which run it belongs to.
        workers: who trains together.

    Returns:
        The run's manifest; of a worker that is not the first, nothing.

    Raises:
        InputError: anything the user gave cannot be used, the loss is not finite, or another worker is gone.
        SystemExit: SIGTERM or SIGINT came; a checkpoint is written.
    """
    begin = time.monotonic()
    checkpoints = directory / run_directory.CHECKPOINT
    if workers.is_chief and not list_checkpoints(checkpoints):
        remove(directory / run_directory.LOG)
    log = RunLog(directory / run_directory.LOG) if workers.is_chief else print_line
    # Checked before the lists are made, and made again with their scale where the flag leaves it open.
    config = RunConfig.of(flags | {"score_temperature": flags["score_temperature"] or 1.0})
    training, distillation = config.training, config.distillation
    protocol = protocol_of(training.split, training.split_by, training.seen_items)
    data, mask = open_dataset(training.dataset).split(protocol.name), protocol.mask(distillation.mask)
    sequence_length = config.model.arguments["sequence_length"]
    short = config.short_windows
    windows = data.windows(sequence_length, training.target_length, short)
    lists = None
    if distillation.teacher:
        with workers.explain_loss(lambda: "before the first epoch"):
            # Worker 0 makes the lists where there are none yet.
            if not workers.is_chief:
                workers.wait()
            lists = find_teacher(
                distillation.teacher,
                data,
                windows,
                distillation.k,
                mask,
                training.dataset,
                training.block_size,
            )
            if workers.is_chief:
                workers.wait()
    if lists is not None and not flags["score_temperature"]:
        config = RunConfig.of(flags | {"score_temperature": _SPREADS * lists.score_spread})
    strategy = workers.strategy
    with strategy.scope():
        model = make_model(config.model, data.num_users, data.num_items)
        distiller = RankingDistiller(model, lists)
        distiller.compile(
            make_optimizer(training.optimizer, training.learning_rate, training.l2, training.warmup_steps),
            config.ranking_loss,
            config.distillation_loss,
            alpha=distillation.alpha,
            student_rank_from_epoch=distillation.discrepancy_start_epoch,
            exact_rank=distillation.exact_rank,
            rank_samples=distillation.rank_samples,
            shared_negatives=training.shared_negatives,
            negative_sampling=training.negative_sampling,
        )
    optimizer, loss = distiller.optimizer, config.distillation_loss
    batches = distiller.batches(
        data,
        training.batch_size,
        training.negatives,
        training.target_length,
        training.user_dropout,
        training.seed,
        short,
    )
    log(
        f"{flags['model']}, d = {flags['dim']}: {model.count_params():,} parameters, {len(windows):,} windows, "
        f"{batches.steps_per_epoch:,} steps an epoch"
        + (f", distilled from {distillation.teacher}" if lists is not None else "")
        + (f", tau = {tau:.3g}" if lists is not None and (tau := getattr(loss, "score_temperature", None)) else "")
        + (f", {strategy.num_replicas_in_sync} replicas" if strategy.num_replicas_in_sync > 1 else "")
    )
    if full := batches.sampler.full_users:
        log(f"{full:,} of {data.num_users:,} users have seen all items in training; no negatives are drawn for them")
    _check_memory(batches, model, lists.k if lists is not None else 0)
    if not short:
        _warn_of_long_windows(data, sequence_length + training.target_length, log)
    history = History(directory / run_directory.HISTORY if workers.is_chief else None)
    state = RunState(model, optimizer, history, BestEpoch())
    checkpointer = Checkpointer(
        checkpoints, training.checkpoint_minutes, identity, state, batches.steps_per_epoch, workers, log
    )
    start = checkpointer.restore()
    board = None
    if workers.is_chief:
        if start == Position():
            for events in directory.glob(run_directory.EVENTS):
                remove(events)
        write_text(directory / run_directory.FLAGS, command_line.flag_lines(flags))
        board = TensorBoardWriter(directory, flags)
    overlap = None
    if lists is not None:
        top_k = TopK(
            model,
            windows,
            data.seen,
            distillation.k,
            mask,
            training.block_size,
            is_candidate=data.is_candidate,
        )
        overlap = ListOverlap(top_k, lists.items, training.seed)
    evaluator = None
    if protocol.part != "all":
        evaluator = Evaluator(data, sequence_length, training.cutoffs, training.block_size, workers)
        log(f"{data.name} split: {left_out_line(evaluator.held_out.counts, protocol.keeps_seen)}")
    trainer = Trainer(distiller, batches, strategy, training.steps_per_call)
    fit = Fit(trainer, state, evaluator, overlap, checkpointer, workers, board, training, distillation.k, log)
    best_epoch = fit.run(start)
    evaluation = fit.evaluate() if evaluator is not None else None
    if evaluation is not None:
        begin_line, users = f"{data.name} split, epoch {best_epoch}: ", users_line(evaluation.counts)
        log(metrics_line(evaluation.metrics, begin_line, f" {users}"))
    if not workers.is_chief:
        return {}
    assert board is not None
    if evaluation is not None and protocol.part == "test":
        board.scalars(best_epoch, {f"test/{name}": value for name, value in evaluation.metrics.items()})
    board.close()
    described = save_model(model, directory)
    if evaluation is not None:
        save_evaluation(evaluation, data.name, directory, epoch=best_epoch)
    manifest = {
        "flags": flags,
        "split": data.name,
        **({"split_times": list(data.split.times)} if data.split.times else {}),
        "seed": flags["seed"],
        "dataset": {"path": flags["dataset"], "fingerprint": data.fingerprint},
        "windows": windows.fingerprint(),
        "short_windows": short,
        "teacher": lists.manifest if lists is not None else None,
        "model": described,
        "epoch": best_epoch,
        "seconds": round(time.monotonic() - begin, 3),
        "peak_memory_bytes": run_directory.peak_memory_bytes(),
        **run_directory.environment(),
    }
    manifest = run_directory.write_run_manifest(directory, manifest)
    # After the manifest: a run that has one is not resumed.
    remove(checkpoints)
    return manifest


def _check_memory(batches: TrainingBatches, model: SequenceRanker, k: int) -> None:
    """Refuses a training whose first step would run out of memory.

    It counts less than a step takes: the optimizer's two numbers a weight, and the rows of the item table that a batch
    scores, with their gradients.
    """
    if keras.distribution.list_devices("gpu"):
        return
    targets = batches.windows.targets.shape[1]
    rows = min(batches.batch_size, len(batches.windows))
    scored = targets * (1 + batches.negatives) + k
    shared = batches.shared_sampler.samples if batches.shared_sampler is not None else 0
    needed = {
        "--dim": 8 * model.count_params(),
        "--dim, --batch_size, --negatives or --k": 8 * rows * scored * model.query_dim,
        "--batch_size or --shared_negatives": 8 * rows * shared,
    }
    total, free = sum(needed.values()), free_bytes()
    if total > free:
        raise InputError(
            f"a training step needs more than {total / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free; "
            "lower " + max(needed, key=lambda name: needed[name])
        )


def _warn_of_long_windows(data: SplitData, length: int, log: Callable[[str], None]) -> None:
    """Says what a long L + T costs: a user with fewer items has one window, padded, however long it is."""
    counts = np.bincount(data.users, minlength=data.num_users)
    counts = counts[counts > 0]
    short = int((counts < length).sum())
    if short * 2 > len(counts):
        log(
            f"warning: {short:,} of {len(counts):,} users have fewer than L + T = {length} items and one padded window "
            f"each; the median user has {int(np.median(counts))}, so a smaller --sequence_length, or "
            "--short_windows=on, trains on more windows"
        )
