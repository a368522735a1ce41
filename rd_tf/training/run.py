"""A whole training run: from flags to a finished run directory."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf import command_line, run_directory, storage
from rd_tf.data.batches import TrainingBatches
from rd_tf.data.dataset_directory import load_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.data.rank_sampler import RankSampler
from rd_tf.data.split import split_interactions
from rd_tf.data.teacher_cache import TeacherCache
from rd_tf.data.unseen_item_sampler import UnseenItemSampler
from rd_tf.data.user_items import UserItems
from rd_tf.data.windows import Windows, make_windows
from rd_tf.errors import InputError
from rd_tf.evaluation.evaluator import Evaluator, save_evaluation
from rd_tf.models.make_model import MODELS, make_model
from rd_tf.models.ranker import SequenceRanker
from rd_tf.models.storage import save_model
from rd_tf.progress import RunLog
from rd_tf.teacher.top_k import TopK
from rd_tf.training.find_teacher import find_teacher
from rd_tf.training.history import History
from rd_tf.training.loss_scale import SparseLossScaleOptimizer
from rd_tf.training.optimizers import make_optimizer
from rd_tf.training.overlap import ListOverlap
from rd_tf.training.step import Distillation, TrainStep
from rd_tf.training.tensorboard import TensorBoardWriter
from rd_tf.training.trainer import Trainer

_HISTOGRAMS = 10


@dataclasses.dataclass(frozen=True)
class _Data:
    interactions: Interactions
    windows: Windows
    seen: UserItems
    cache: TeacherCache | None
    batches: TrainingBatches


def train_run(directory: Path, flags: dict[str, Any]) -> dict[str, Any]:
    """Trains, evaluates and fills a run directory, the manifest last.

    Args:
        directory: the run directory, held by this process.
        flags: every flag of `rd_tf.train`.

    Returns:
        The run's manifest.

    Raises:
        InputError: anything the user gave cannot be used.
    """
    begin = time.monotonic()
    data = _load(flags)
    storage.remove(directory / run_directory.TENSORBOARD)
    storage.write_text(directory / run_directory.FLAGS, command_line.flag_lines(flags))
    log = RunLog(directory / run_directory.LOG)
    strategy = tf.distribute.MirroredStrategy() if flags["strategy"] == "mirrored" else tf.distribute.get_strategy()
    if flags["dtype_policy"] == "mixed_float16" and strategy.num_replicas_in_sync > 1:
        # Keras 3.15 looks for an overflow on the first replica only.
        raise InputError(
            f"--dtype_policy=mixed_float16 does not go with --strategy={flags['strategy']} on "
            f"{strategy.num_replicas_in_sync} devices; use mixed_bfloat16"
        )
    distillation = _distillation(flags) if data.cache is not None else None
    with strategy.scope():
        model = make_model(flags, data.interactions.num_users, data.interactions.num_items)
        optimizer = make_optimizer(flags["optimizer"], flags["learning_rate"], flags["l2"])
        if flags["dtype_policy"] == "mixed_float16":
            optimizer = SparseLossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
    log(
        f"{flags['model']}, d = {flags['dim']}: {model.count_params():,} parameters, {len(data.windows):,} windows, "
        f"{data.batches.steps_per_epoch:,} steps an epoch"
        + (f", distilled from {flags['teacher']}" if distillation else "")
    )
    evaluator = Evaluator(
        data.interactions,
        split_interactions(data.interactions, flags["split"]),
        flags["sequence_length"],
        flags["cutoffs"],
        flags["block_size"],
    )
    trainer = Trainer(TrainStep(model, optimizer, distillation), data.batches, strategy, flags["steps_per_call"])
    board = TensorBoardWriter(directory / run_directory.TENSORBOARD, flags)
    history = History(directory / run_directory.HISTORY)
    best_epoch = _fit(trainer, model, evaluator, data, flags, history, board, log)
    evaluation = evaluator.evaluate(model)
    if flags["split"] == "test":
        board.scalars(best_epoch, {f"test/{name}": value for name, value in evaluation.metrics.items()})
    board.close()
    described = save_model(model, directory)
    save_evaluation(evaluation, flags["split"], directory, epoch=best_epoch)
    log(f"{flags['split']} split, epoch {best_epoch}: " + _metrics_line(evaluation.metrics))
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
    storage.write_json(directory / run_directory.MANIFEST, manifest)
    return manifest


def _load(flags: dict[str, Any]) -> _Data:
    interactions = load_dataset(flags["dataset"])
    train = split_interactions(interactions, flags["split"]).train
    windows = make_windows(interactions, train, flags["sequence_length"], flags["target_length"])
    users, items = interactions.users[train], interactions.items[train]
    cache = find_teacher(interactions, windows, flags) if flags["teacher"] else None
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


def _fit(
    trainer: Trainer,
    model: SequenceRanker,
    evaluator: Evaluator,
    data: _Data,
    flags: dict[str, Any],
    history: History,
    board: TensorBoardWriter,
    log: RunLog,
) -> int:
    """Trains all epochs; returns the epoch whose weights the model now has."""
    overlap = None
    if data.cache is not None:
        lists = TopK(model, data.windows, data.seen, flags["k"], flags["mask"], flags["block_size"])
        overlap = ListOverlap(lists, data.cache.items, flags["seed"])
    epochs, every = flags["epochs"], flags["validate_every"] or flags["epochs"]
    best_map, best_epoch, best_weights = -np.inf, epochs, None
    with contextlib.closing(trainer.epochs(epochs)) as reports:
        for report in reports:
            epoch, last = report.epoch, report.epoch == epochs
            looks = last or epoch % every == 0
            values = {f"train/{name}": value for name, value in report.means.items()}
            if data.cache is None:
                values = {"train/loss": report.means["loss"], "train/ranking_loss": report.means["ranking_loss"]}
            line = f"epoch {epoch:3d}  {report.seconds:6.1f} s  loss {report.means['loss']:.4f}"
            if looks and overlap is not None:
                values[f"distillation/overlap@{flags['k']}"] = overlap.measure()
            # The test part is read for the final number only, so no epoch is looked at with it.
            if looks and flags["split"] == "validation":
                begin = time.monotonic()
                found = evaluator.evaluate(model).metrics
                values.update({f"validation/{name}": value for name, value in found.items()})
                values["seconds/validation"] = time.monotonic() - begin
                line += "  validation " + _metrics_line(found)
                if found["map"] > best_map:
                    best_map, best_epoch, best_weights = found["map"], epoch, model.get_weights()
            if last or epoch % max(1, epochs // _HISTOGRAMS) == 0:
                board.histograms(epoch, model)
            values["seconds/epoch"] = report.seconds
            board.scalars(epoch, values)
            history.add({"epoch": epoch, **values})
            log(line)
    if best_weights is not None and best_epoch != epochs:
        model.set_weights(best_weights)
    return best_epoch


def _metrics_line(metrics: dict[str, float]) -> str:
    first = [name for name in metrics if name.startswith(("precision@", "ndcg_tang@"))]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in ("map", *first))
