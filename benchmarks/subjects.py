"""What benchmarks measure: random worlds, models and training data with the paper's settings, and their least work."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.report import Work
from rd_tf.data.batches import TrainingBatches
from rd_tf.data.dataset import load_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.data.sampling import GROUP, RankSampler, SharedSampler, UnseenItemSampler
from rd_tf.data.windows import Split, UserItems, Windows, make_windows, split_interactions
from rd_tf.losses.distillation import ListwiseSoftmaxDistillation
from rd_tf.losses.ranking import SampledSoftmax
from rd_tf.models.caser import Caser
from rd_tf.models.ranker import SequenceRanker
from rd_tf.runtime import share_cores
from rd_tf.training.distiller import RankingDistiller
from rd_tf.training.loop import Trainer
from rd_tf.training.optimizers import make_optimizer

_FLOAT = 4
# Adam's two moments of a weight outside the tables.
_NETWORK_SLOTS = 2


@dataclasses.dataclass(frozen=True)
class CaserSizes:
    """Sizes that decide Caser's arithmetic: d, L, n_v and n_h of `rd_tf.models.caser.Caser`."""

    dim: int
    sequence_length: int = 5
    vertical_filters: int = 2
    horizontal_filters: int = 16

    @property
    def dense_inputs(self) -> int:
        return self.vertical_filters * self.dim + self.horizontal_filters * self.sequence_length

    @property
    def network_weights(self) -> int:
        """Weights outside the tables: filters, dense layer, biases."""
        heights = range(1, self.sequence_length + 1)
        horizontal = sum(height * self.dim + 1 for height in heights) * self.horizontal_filters
        vertical = (self.sequence_length + 1) * self.vertical_filters
        return horizontal + vertical + (self.dense_inputs + 1) * self.dim


@dataclasses.dataclass(frozen=True)
class TableRows:
    """Distinct rows that a step touches, of Caser's tables; those of `sampled_items` are only read."""

    users: int
    sequence_items: int
    scored_items: int
    sampled_items: int = 0


def encode_flops(sizes: CaserSizes) -> int:
    """Operations of one query's matrix products.

    Horizontal filters `sum over heights h of (L - h + 1) h d n_h` (35 d n_h for L = 5), vertical filters `L d n_v`,
    dense layer `(n_v d + n_h L) d` multiply-adds.
    """
    length, dim = sizes.sequence_length, sizes.dim
    places = sum((length - height + 1) * height for height in range(1, length + 1))
    horizontal = places * dim * sizes.horizontal_filters
    vertical = length * dim * sizes.vertical_filters
    return 2 * (horizontal + vertical + sizes.dense_inputs * dim)


def step_work(
    sizes: CaserSizes, batch_size: int, scored: int, sampled: int, rows: TableRows, table_slots: int = 2
) -> Work:
    """The work of one training step.

    FLOPs: a query's matrix products and `scored` scores of 2 d multiply-adds, times 3 for forward and backward (each
    product has two gradients of its own size); `sampled` scores forward only. Bytes: every distinct row of the tables
    and every weight of the network is read and written with the optimizer's slots, with Adam's two moments 6 x 4 bytes
    a weight; the rows of rank samples are read once. Gradients, activations and the windows themselves are left out.

    Args:
        sizes: of the model.
        batch_size: rows of the batch.
        scored: items scored a row with a gradient: target, negatives, teacher's list.
        sampled: items scored a row without one.
        rows: what the batch touches.
        table_slots: numbers that the optimizer keeps for every weight of a table.
    """
    query = 2 * sizes.dim
    flops = batch_size * (3 * (encode_flops(sizes) + scored * 2 * query) + sampled * 2 * query)
    trained = (rows.users + rows.sequence_items) * sizes.dim + rows.scored_items * (query + 1)
    kept = (1 + table_slots) * trained + (1 + _NETWORK_SLOTS) * sizes.network_weights
    return Work(flops, _FLOAT * (2 * kept + rows.sampled_items * (query + 1)))


def ranking_work(sizes: CaserSizes, queries: int, item_rows: int, block_size: int) -> Work:
    """The work of scoring every item for some queries.

    FLOPs: the queries' matrix products and one score of 2 d multiply-adds for every row of the item table. Bytes: the
    item table with its biases once a block. Selecting, ranking and the scores themselves are left out.

    Args:
        sizes: of the model.
        queries: windows or users.
        item_rows: rows of the item table.
        block_size: queries scored in one matrix product.
    """
    query = 2 * sizes.dim
    blocks = -(-queries // block_size)
    flops = queries * (encode_flops(sizes) + item_rows * 2 * query)
    return Work(flops, blocks * item_rows * (query + 1) * _FLOAT)


def batch_rows(
    windows: Windows, num_items: int, batch_size: int, negatives: int, lists: np.ndarray | None, draws: int, seed: int
) -> TableRows:
    """Counts the distinct rows that one random batch touches; `draws` are the rank samples of the whole batch."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(windows), min(batch_size, len(windows)))
    scored = [windows.targets[rows].ravel(), generator.integers(1, num_items + 1, len(rows) * negatives)]
    if lists is not None:
        scored.append(np.asarray(lists[rows]).ravel())
    distinct = np.unique(np.concatenate(scored))
    samples = generator.integers(1, num_items + 1, draws)
    return TableRows(
        users=len(np.unique(windows.users[rows])),
        sequence_items=len(np.unique(windows.sequences[rows])),
        scored_items=len(distinct),
        sampled_items=len(np.setdiff1d(samples, distinct)),
    )


# Gowalla as the authors publish it: users, items, training windows of L = 5, T = 1 in the test split.
GOWALLA = (13_149, 14_009, 367_611)
_WINDOW = 6


def load_world(dataset: str, seed: int) -> Interactions:
    """Reads a dataset directory or, with an empty name, makes a random world of Gowalla's size."""
    return load_dataset(dataset) if dataset else random_world(*GOWALLA, seed)


def random_world(num_users: int, num_items: int, num_windows: int, seed: int) -> Interactions:
    """Random histories: nothing to learn from them, but as much work as real ones of this size.

    Lengths of histories are spread exponentially. An item's chance falls with the root of its popularity rank, and the
    popular ones lie anywhere in the tables, so that rows are gathered from all over memory as with real items.
    Timestamps and raw ids take no memory to speak of: a row costs 8 bytes.

    Args:
        num_users: number of users.
        num_items: number of items.
        num_windows: training windows with L + T = 6 of the test split, all users together; at least one a user.
        seed: the same seed gives the same world.

    Raises:
        ValueError: fewer windows than users.
    """
    if num_windows < num_users:
        raise ValueError(f"every user has a window; received {num_windows} windows for {num_users} users")
    generator = np.random.default_rng(seed)
    train = _spread(num_windows - num_users, num_users, generator) + _WINDOW
    # The test split holds out n // 5 of n: 4 q + r training rows are left of 5 q + r.
    counts = train // 4 * 5 + train % 4
    rows = int(counts.sum())
    popularity_rank = generator.random(rows, np.float32)
    np.square(popularity_rank, out=popularity_rank)
    popularity_rank *= num_items
    # In single precision a product may round up to num_items.
    items = np.minimum(popularity_rank.astype(np.int32), num_items - 1)
    names = generator.permutation(np.arange(1, num_items + 1, dtype=np.int32))
    return Interactions(
        users=np.repeat(np.arange(num_users, dtype=np.int32), counts),
        items=names[items],
        # Equal times keep the order of the rows.
        timestamps=np.broadcast_to(np.int64(0), rows),
        user_ids=["user"] * num_users,
        item_ids=["item"] * num_items,
    )


def _spread(total: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """Whole numbers at least 0, spread exponentially, that add up to `total`: `[parts] int64`."""
    shares = generator.standard_exponential(parts)
    numbers = np.floor(shares * (total / shares.sum())).astype(np.int64)
    numbers[generator.permutation(parts)[: total - int(numbers.sum())]] += 1
    return numbers


SEQUENCE_LENGTH, TARGET_LENGTH = 5, 1
LEARNING_RATE, L2 = 1e-3, 1e-6
NEGATIVES, K, RANK_SAMPLES = 3, 10, 100
# Of the commands' defaults: list-wise distillation.
LISTWISE_K, SHARED_NEGATIVES = 50, 1000
# Numbers that an optimizer keeps for every weight of a table.
TABLE_SLOTS = {"adam": 2, "lazy_adam": 1}


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """A world made ready for training: with all that `rd_tf.train` keeps beside the model."""

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
    """Shares the cores as the commands do, and makes a dataset or the random world of Gowalla's size ready."""
    share_cores(threads_per_operation)
    return make_training_data(load_world(dataset, seed))


def make_batches(
    data: TrainingData, batch_size: int, steps: int, seed: int, lists: np.ndarray | None = None
) -> "ShortBatches":
    """Batches with the paper's negatives and, with the teacher's lists `[windows, K] int32`, its rank samples."""
    rank_sampler = None
    if lists is not None:
        train, world = data.split.train, data.interactions
        sizes = (world.num_users, world.num_items, RANK_SAMPLES)
        rank_sampler = RankSampler(world.users[train], world.items[train], *sizes)
    return ShortBatches(data.windows, data.sampler, batch_size, NEGATIVES, seed, lists, rank_sampler, steps=steps)


def make_listwise_batches(
    data: TrainingData, batch_size: int, steps: int, seed: int, lists: np.ndarray
) -> "ShortBatches":
    """Batches with shared negatives and the teacher's lists `[windows, K] int32`, whose scores fall evenly."""
    train, world = data.split.train, data.interactions
    sizes = (world.num_users, world.num_items, SHARED_NEGATIVES)
    shared = SharedSampler(world.users[train], world.items[train], *sizes)
    scores = np.tile(-np.arange(lists.shape[1], dtype=np.float16), (len(lists), 1))
    return ShortBatches(
        data.windows,
        data.sampler,
        batch_size,
        0,
        seed,
        lists,
        teacher_scores=scores,
        shared_sampler=shared,
        steps=steps,
    )


def step_floor(
    data: TrainingData,
    dim: int,
    batch_size: int,
    optimizer: str,
    seed: int,
    lists: np.ndarray | None = None,
    with_discrepancy: bool = False,
    shared: int = 0,
) -> tuple[Work, Work]:
    """The work of a training step: that of the rows a random batch touches, and that of all rows of the tables.

    With `shared` negatives of the batch a row has none of its own; their rows of tables are those of 1,000 random items
    at most, and are left out.
    """
    scored = TARGET_LENGTH + (shared or NEGATIVES) + (0 if lists is None else lists.shape[1])
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
    """Batches of all windows in epochs cut short: an epoch's first `steps` batches."""

    steps: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return min(self.steps, super().steps_per_epoch)


class TimedDistiller(RankingDistiller):
    """Takes the time of what an optimizer leaves for the end of an epoch."""

    finish_seconds = 0.0

    def finish_epoch(self) -> None:
        begin = time.perf_counter()
        super().finish_epoch()
        self.finish_seconds = time.perf_counter() - begin


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Seconds of a repeat: the mean of a step with its input, and what the optimizer leaves for the end of an epoch."""

    step: float
    finish_epoch: float


def time_steps(
    model: SequenceRanker,
    optimizer: keras.optimizers.Optimizer,
    batches: ShortBatches,
    with_student_rank: bool | None,
    steps_per_call: int,
    repeats: int,
    is_listwise: bool = False,
) -> Iterator[StepTimes]:
    """Trains `repeats` short epochs with `Trainer` and yields after each; the first one also traces the graph.

    The input pipeline runs beside the steps and up to 4 batches ahead of them, also between repeats: the first 4
    batches of a repeat are ready when it begins, and 4 more are begun before it ends.

    Args:
        with_student_rank: whether distilled items are weighed by the student's rank, too; None for no distillation.
        is_listwise: whether the losses are sampled softmax and list-wise distillation, not the paper's.
    """
    lists: Any = None if with_student_rank is None else batches.teacher_items
    distiller = TimedDistiller(model, lists)
    # Counted in epochs: from the first one on, or never.
    distiller.compile(
        optimizer,
        SampledSoftmax() if is_listwise else None,
        ListwiseSoftmaxDistillation(10.0) if is_listwise else None,
        student_rank_from_epoch=0 if with_student_rank else repeats,
    )
    trainer = Trainer(distiller, batches, tf.distribute.get_strategy(), steps_per_call)
    for report in trainer.epochs(repeats):
        yield StepTimes((report.seconds - distiller.finish_seconds) / batches.steps_per_epoch, distiller.finish_seconds)
