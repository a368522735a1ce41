"""A whole training run: from flags to a finished run directory."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from rd_tf import command_line, run_directory
from rd_tf.data.batches import TrainingBatches
from rd_tf.data.dataset import load_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.data.sampling import RankSampler, UnseenItemSampler
from rd_tf.data.teacher_lists import TeacherCache
from rd_tf.data.windows import UserItems, Windows, make_windows, split_interactions
from rd_tf.evaluation.evaluator import Evaluator, save_evaluation
from rd_tf.models.registry import MODELS, make_model, save_model
from rd_tf.runtime import RunLog, print_line
from rd_tf.storage import remove, write_text
from rd_tf.teacher.cache import find_teacher
from rd_tf.teacher.top_k import TopK
from rd_tf.training.callbacks import ListOverlap, TensorBoardWriter
from rd_tf.training.checkpoints import BestEpoch, Checkpointer, History, RunState, list_checkpoints
from rd_tf.training.fit import Fit, metrics_line
from rd_tf.training.optimizers import SparseLossScaleOptimizer, make_optimizer
from rd_tf.training.step import Distillation, TrainStep
from rd_tf.training.trainer import Position, Trainer
from rd_tf.training.workers import Workers


@dataclasses.dataclass(frozen=True)
class _Data:
    interactions: Interactions
    windows: Windows
    seen: UserItems
    cache: TeacherCache | None
    batches: TrainingBatches


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
    data = _load(flags, workers)
    strategy = workers.strategy
    distillation = _distillation(flags) if data.cache is not None else None
    with strategy.scope():
        model = make_model(flags, data.interactions.num_users, data.interactions.num_items)
        optimizer = make_optimizer(flags["optimizer"], flags["learning_rate"], flags["l2"], flags["warmup_steps"])
        if flags["dtype_policy"] == "mixed_float16":
            optimizer = SparseLossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
    batches = dataclasses.replace(data.batches, noise_width=model.noise_width if model.dropout_rate else 0)
    log(
        f"{flags['model']}, d = {flags['dim']}: {model.count_params():,} parameters, {len(data.windows):,} windows, "
        f"{batches.steps_per_epoch:,} steps an epoch"
        + (f", distilled from {flags['teacher']}" if distillation else "")
        + (f", {strategy.num_replicas_in_sync} replicas" if strategy.num_replicas_in_sync > 1 else "")
    )
    history = History(directory / run_directory.HISTORY if workers.is_chief else None)
    state = RunState(model, optimizer, history, BestEpoch())
    checkpointer = Checkpointer(
        checkpoints, flags["checkpoint_minutes"], identity, state, batches.steps_per_epoch, workers, log
    )
    start = checkpointer.restore()
    board = None
    if workers.is_chief:
        if start == Position():
            remove(directory / run_directory.TENSORBOARD)
        write_text(directory / run_directory.FLAGS, command_line.flag_lines(flags))
        board = TensorBoardWriter(directory / run_directory.TENSORBOARD, flags)
    overlap = None
    if data.cache is not None:
        candidates = data.seen.occurring(model.num_items)
        sizes = flags["k"], flags["mask"], flags["block_size"]
        lists = TopK(model, data.windows, data.seen, *sizes, is_candidate=candidates)
        overlap = ListOverlap(lists, data.cache.items, flags["seed"])
    evaluator = Evaluator(
        data.interactions,
        split_interactions(data.interactions, flags["split"]),
        flags["sequence_length"],
        flags["cutoffs"],
        flags["block_size"],
        workers,
    )
    trainer = Trainer(TrainStep(model, optimizer, distillation), batches, strategy, flags["steps_per_call"])
    fit = Fit(trainer, state, evaluator, overlap, checkpointer, workers, board, flags, log)
    best_epoch = fit.run(start)
    evaluation = fit.evaluate()
    log(f"{flags['split']} split, epoch {best_epoch}: " + metrics_line(evaluation.metrics))
    if not workers.is_chief:
        return {}
    assert board is not None
    if flags["split"] == "test":
        board.scalars(best_epoch, {f"test/{name}": value for name, value in evaluation.metrics.items()})
    board.close()
    described = save_model(model, directory)
    save_evaluation(evaluation, flags["split"], directory, epoch=best_epoch)
    manifest = {
        "flags": flags,
        "split": flags["split"],
        "seed": flags["seed"],
        "dataset": {"path": flags["dataset"], "fingerprint": data.interactions.fingerprint()},
        "windows": data.windows.fingerprint(),
        "teacher": data.cache.manifest if data.cache is not None else None,
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


def _load(flags: dict[str, Any], workers: Workers) -> _Data:
    interactions = load_dataset(flags["dataset"])
    train = split_interactions(interactions, flags["split"]).train
    windows = make_windows(interactions, train, flags["sequence_length"], flags["target_length"])
    users, items = interactions.users[train], interactions.items[train]
    cache = None
    if flags["teacher"]:
        with workers.explain_loss(lambda: "before the first epoch"):
            # Worker 0 makes the lists where there are none yet.
            if not workers.is_chief:
                workers.wait()
            cache = find_teacher(interactions, windows, flags)
            if workers.is_chief:
                workers.wait()
    rank_sampler = None
    if cache is not None and not flags["exact_rank"]:
        sizes = (interactions.num_users, interactions.num_items)
        rank_sampler = RankSampler(users, items, *sizes, flags["rank_samples"])
    seen = UserItems(users, items, interactions.num_users)
    looks_back = MODELS[flags["model"]].looks_back != "none"
    batches = TrainingBatches(
        windows,
        UnseenItemSampler(users, items, interactions.num_users, interactions.num_items, interactions.user_ids),
        flags["batch_size"],
        flags["negatives"],
        flags["seed"],
        None if cache is None else cache.items,
        rank_sampler,
        (seen, flags["history"]) if looks_back else None,
        flags["user_dropout"],
        interactions.num_users,
    )
    return _Data(interactions, windows, seen, cache, batches)


def _distillation(flags: dict[str, Any]) -> Distillation:
    return Distillation(
        flags["alpha"],
        flags["position_temperature"],
        flags["discrepancy_sharpness"],
        flags["discrepancy_start_epoch"],
        flags["exact_rank"],
        flags["renormalize_weights"],
    )
