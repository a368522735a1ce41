"""What is measured: models, optimizers, trainers and data with the paper's settings, put together as rd_tf does."""

import dataclasses
import time
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from benchmarks.floors import CaserSizes, TableRows, Work, batch_rows, step_work
from benchmarks.world import load_world
from rd_tf.data.batches import TrainingBatches
from rd_tf.data.interactions import Interactions
from rd_tf.data.sampling import GROUP, RankSampler, UnseenItemSampler
from rd_tf.data.windows import Split, UserItems, Windows, make_windows, split_interactions
from rd_tf.models.caser import Caser
from rd_tf.models.ranker import SequenceRanker
from rd_tf.runtime import share_cores
from rd_tf.training.optimizers import make_optimizer
from rd_tf.training.step import Distillation, TrainStep
from rd_tf.training.trainer import Trainer

SEQUENCE_LENGTH, TARGET_LENGTH = 5, 1
LEARNING_RATE, L2 = 1e-3, 1e-6
NEGATIVES, K, RANK_SAMPLES = 3, 10, 100
# Numbers that an optimizer keeps for every weight of a table.
TABLE_SLOTS = {"adam": 2, "lazy_adam": 1}


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """A world made ready for training, with all that `rd_tf.train` keeps beside the model.

    Attributes:
        interactions: the world.
        split: its test split.
        windows: training windows.
        seen: the users' training items.
        sampler: draws their unseen items.
    """

    interactions: Interactions
    split: Split
    windows: Windows
    seen: UserItems
    sampler: UnseenItemSampler


def make_training_data(interactions: Interactions) -> TrainingData:
    """Splits, cuts windows and sorts what negatives are drawn from."""
    split = split_interactions(interactions, "test")
    windows = make_windows(interactions, split.train, SEQUENCE_LENGTH, TARGET_LENGTH)
    users, items = interactions.users[split.train], interactions.items[split.train]
    sampler = UnseenItemSampler(users, items, interactions.num_users, interactions.num_items)
    return TrainingData(interactions, split, windows, UserItems(users, items, interactions.num_users), sampler)


def load_training_data(dataset: str, seed: int, threads_per_operation: int = 0) -> TrainingData:
    """Shares the cores as the commands do, and makes a dataset or the random world of Gowalla's size ready.

    Args:
        dataset: a dataset directory; empty for the random world.
        seed: of the random world.
        threads_per_operation: see `rd_tf.threads.share_cores`; TensorFlow must not have run an operation yet.
    """
    share_cores(threads_per_operation)
    return make_training_data(load_world(dataset, seed))


def make_batches(
    data: TrainingData, batch_size: int, steps: int, seed: int, lists: np.ndarray | None = None
) -> "ShortBatches":
    """Batches with the paper's negatives and, with the teacher's lists, its rank samples.

    Args:
        data: what to train on.
        batch_size: windows a batch.
        steps: of an epoch.
        seed: of shuffling and draws.
        lists: `[windows, K] int32`, or None.
    """
    rank_sampler = None
    if lists is not None:
        train, world = data.split.train, data.interactions
        sizes = (world.num_users, world.num_items, RANK_SAMPLES)
        rank_sampler = RankSampler(world.users[train], world.items[train], *sizes)
    return ShortBatches(data.windows, data.sampler, batch_size, NEGATIVES, seed, lists, rank_sampler, steps=steps)


def step_floor(
    data: TrainingData,
    dim: int,
    batch_size: int,
    optimizer: str,
    seed: int,
    lists: np.ndarray | None = None,
    with_discrepancy: bool = False,
) -> tuple[Work, Work]:
    """The work of a training step: that of the rows a random batch touches, and that of all rows of the tables."""
    scored = TARGET_LENGTH + NEGATIVES + (0 if lists is None else lists.shape[1])
    sampled = RANK_SAMPLES if with_discrepancy else 0
    num_items = data.interactions.num_items
    draws = -(-batch_size // GROUP) * sampled
    rows = batch_rows(data.windows, num_items, batch_size, NEGATIVES, lists, draws, seed)
    every = TableRows(data.interactions.num_users, num_items + 1, num_items + 1)
    sizes, slots = CaserSizes(dim), TABLE_SLOTS[optimizer]
    floor, all_rows = (step_work(sizes, batch_size, scored, sampled, touched, slots) for touched in (rows, every))
    return floor, all_rows


def make_caser(interactions: Interactions, dim: int, seed: int) -> SequenceRanker:
    """Caser with the paper's settings and random weights."""
    return Caser(interactions.num_users, interactions.num_items, SEQUENCE_LENGTH, dim, seed=seed)


def make_built_optimizer(name: str, model: SequenceRanker) -> keras.optimizers.Optimizer:
    """The paper's Adam, or its row-sparse form, with its slots."""
    optimizer = make_optimizer(name, LEARNING_RATE, L2)
    optimizer.build(model.trainable_variables)
    return optimizer


def random_lists(rows: int, k: int, num_items: int, seed: int) -> np.ndarray:
    """Lists that stand for a teacher's: `[rows, k] int32`."""
    return np.random.default_rng(seed).integers(1, num_items + 1, (rows, k), np.int32)


def some_windows(windows: Windows, count: int, seed: int) -> Windows:
    """Random windows in the order (user, position), all where there are fewer than `count`."""
    chosen = np.random.default_rng(seed).choice(len(windows), min(count, len(windows)), replace=False)
    rows = np.sort(chosen)
    return Windows(windows.users[rows], windows.positions[rows], windows.sequences[rows], windows.targets[rows])


@dataclasses.dataclass(frozen=True)
class ShortBatches(TrainingBatches):
    """Batches of all windows in epochs cut short: an epoch's first `steps` batches.

    Attributes:
        steps: of an epoch, at most as many as a whole one has.
    """

    steps: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return min(self.steps, super().steps_per_epoch)


class TimedStep(TrainStep):
    """A training step that takes the time of what an optimizer leaves for the end of an epoch.

    Attributes:
        finish_seconds: of the last `finish_epoch`.
    """

    finish_seconds = 0.0

    def finish_epoch(self) -> None:
        begin = time.perf_counter()
        super().finish_epoch()
        self.finish_seconds = time.perf_counter() - begin


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Times of a repeat in seconds.

    Attributes:
        step: mean of a step, its input included.
        finish_epoch: what the optimizer leaves for the end of an epoch.
    """

    step: float
    finish_epoch: float


def time_steps(
    model: SequenceRanker,
    optimizer: keras.optimizers.Optimizer,
    batches: ShortBatches,
    distillation: Distillation | None,
    steps_per_call: int,
    repeats: int,
) -> Iterator[StepTimes]:
    """Trains `repeats` short epochs with `Trainer` and yields after each; the first one also traces the graph.

    The input pipeline runs beside the steps and up to 4 batches ahead of them, also between repeats: the first 4
    batches of a repeat are ready when it begins, and 4 more are begun before it ends.
    """
    step = TimedStep(model, optimizer, distillation)
    trainer = Trainer(step, batches, tf.distribute.get_strategy(), steps_per_call)
    for report in trainer.epochs(repeats):
        yield StepTimes((report.seconds - step.finish_seconds) / batches.steps_per_epoch, step.finish_seconds)
