"""The tf.data join of windows, negatives and the teacher's lists."""

import dataclasses
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from rd_tf.data.sampling import GROUP, RankSampler, SharedSampler, UnseenItemSampler, uniform_rows
from rd_tf.data.teacher_lists import ShardedArray, TeacherCache
from rd_tf.data.windows import SplitData, UserItems, Windows

if TYPE_CHECKING:
    from rd_tf.models.ranker import SequenceRanker

# Streams of random numbers that must not repeat each other.
_SHUFFLE, _NEGATIVES, _RANK_SAMPLES, _UNKNOWN_USERS, _NOISE, _SHARED, _LIST_NOISE = range(7)
_SHUFFLE_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """Batches of training windows, shuffled anew and joined with new negatives in every epoch.

    A batch is computed from (seed, step) alone, so that training can begin at any step and always sees the same data,
    and any number of replicas shares one global batch, draws and all. A replica joins its own rows only. It holds

    - `user` `[b] int32` (the number of users in place of some, with a user dropout), `sequence` `[b, L] int32`
    - `items` `[b, T + T * negatives] int32`: targets, then negatives; `labels` of the same shape, float32: 1, 0, and
      -1 for padding: a target that a short history lacks, a negative of a user who has seen every item
    - `teacher_items` `[b, K] int32`, with a teacher; `teacher_scores` `[b, K] float32`, where they are asked for
    - `sampled_items` `[groups, samples] int32` and `is_unseen` `[b, samples] bool` as `RankSampler.sample` gives them,
      with a rank sampler
    - `shared_items` `[samples] int32`, the same for all rows, `is_shared_negative` `[b, samples] bool`, false where the
      item is a target of the row or its user has seen it, and `is_shared_unlisted`, also false where it is in the
      row's list (with a teacher), with a shared sampler; where that is not uniform, `items_log_ratio`,
      `shared_log_ratio` and `teacher_log_ratio` too, `SharedSampler.log_ratio` of each
    - `seen_items` and `seen_rows` `[n] int32`, training items of the rows' users and whose they are, where asked for
    - `list_noise` `[b, K] float32`, uniform in [0, 1), where it is asked for
    - `item_groups` `[b, K] int32`, the popularity group of each item of the list, with groups
    - `history_items` and `history_rows` `[n] int32` as `UserItems.window_histories` gives them, with histories
    - `noise` `[b, noise_width] float32`, uniform in [0, 1), for dropout, with a noise width
    - `global_size` `[] int32`: rows of the batch over all replicas.

    Attributes:
        windows: the training windows.
        sampler: draws negatives.
        batch_size: rows of a global batch; the last one of an epoch may be smaller.
        negatives: negatives a target.
        seed: of shuffling and draws.
        teacher_items: `[windows, K] int32`, the teacher's lists, or None; a memory map stays one.
        rank_sampler: draws items to estimate the student's rank, or None.
        histories: the users' items, and which of them a window looks back on ("before" or "all"); or None.
        user_dropout: share of rows whose user is replaced by the unknown one; negatives and samples are still his own.
        num_users: the unknown user's number, with a user dropout.
        noise_width: numbers a row that the model's dropout asks for; see `SequenceRanker.noise_width`.
        teacher_scores: `[windows, K] float16`, the teacher's scores of its lists, or None.
        shared_sampler: draws negatives that the batch shares, or None.
        list_noise: whether batches hold random numbers for the teacher's lists.
        seen: the users' training items, if batches are to hold them.
        item_groups: `[num_items + 1] int32` of `popularity_groups`, or None.
    """

    windows: Windows
    sampler: UnseenItemSampler
    batch_size: int
    negatives: int
    seed: int
    teacher_items: np.ndarray | ShardedArray | None = None
    rank_sampler: RankSampler | None = None
    histories: tuple[UserItems, str] | None = None
    user_dropout: float = 0.0
    num_users: int = 0
    noise_width: int = 0
    teacher_scores: np.ndarray | ShardedArray | None = None
    shared_sampler: SharedSampler | None = None
    list_noise: bool = False
    seen: UserItems | None = None
    item_groups: np.ndarray | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def input_function(
        self, first_step: int, last_step: int
    ) -> Callable[[tf.distribute.InputContext], tf.data.Dataset]:
        """What `strategy.distribute_datasets_from_function` takes: replica batches of the steps [first, last)."""

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            replicas = context.num_replicas_in_sync
            pipelines = context.num_input_pipelines
            here = replicas // pipelines
            first_replica = context.input_pipeline_id * here
            batch = self._batch_function(replicas)
            elements = tf.data.Dataset.range(first_step * here, last_step * here)

            # There is nothing to convert, and AutoGraph would leave files behind where a process is killed.
            @tf.autograph.experimental.do_not_convert
            def part(element: tf.Tensor) -> dict[str, tf.Tensor]:
                return batch(element // here, first_replica + element % here)

            return elements.map(part, num_parallel_calls=1).prefetch(4 * here)

        return make

    def _batch_function(self, replicas: int) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
        rows = len(self.windows)
        num_targets = self.windows.targets.shape[1]

        def batch(step: tf.Tensor, replica: tf.Tensor) -> dict[str, tf.Tensor]:
            epoch, number = step // self.steps_per_epoch, step % self.steps_per_epoch
            begin = number * self.batch_size
            size = tf.minimum(begin + self.batch_size, rows) - begin
            # Rows that share rank samples stay together.
            groups = -(-size // GROUP)
            first = groups * replica // replicas * GROUP
            last = tf.minimum(groups * (replica + 1) // replicas * GROUP, size)
            places = tf.range(begin + first, begin + last)
            indices = _shuffle(places, self._shuffle_seed(epoch), rows)
            joined = self._rows(indices)
            user, target = joined["user"], joined.pop("target")
            joined["items"], joined["labels"] = target, tf.where(target > 0, 1.0, -1.0)
            if self.negatives:
                seed = self._seed(_NEGATIVES, step)
                negative = self.sampler.sample(user, num_targets * self.negatives, seed, first)
                joined["items"] = tf.concat([target, negative], 1)
                joined["labels"] = tf.concat([joined["labels"], tf.where(negative > 0, 0.0, -1.0)], 1)
            joined["global_size"] = tf.cast(size, tf.int32)
            if self.rank_sampler is not None:
                seed = self._seed(_RANK_SAMPLES, step)
                joined["sampled_items"], joined["is_unseen"] = self.rank_sampler.sample(user, seed, first)
            if self.shared_sampler is not None:
                joined |= self._shared(self.shared_sampler, step, epoch, begin, size, joined)
            if self.list_noise:
                seed = self._seed(_LIST_NOISE, step)
                joined["list_noise"] = uniform_rows(seed, first, tf.size(user), joined["teacher_items"].shape[1])
            if self.item_groups is not None:
                joined["item_groups"] = tf.gather(self.item_groups, joined["teacher_items"])
            if self.user_dropout:
                drawn = uniform_rows(self._seed(_UNKNOWN_USERS, step), first, tf.size(user), 1)[:, 0]
                joined["user"] = tf.where(drawn < self.user_dropout, self.num_users, user)
            if "teacher_scores" in joined:
                joined["teacher_scores"] = tf.cast(joined["teacher_scores"], tf.float32)
            if self.noise_width:
                joined["noise"] = uniform_rows(self._seed(_NOISE, step), first, tf.size(user), self.noise_width)
            return joined

        return batch

    def _shared(
        self,
        sampler: SharedSampler,
        step: tf.Tensor,
        epoch: tf.Tensor,
        begin: tf.Tensor,
        size: tf.Tensor,
        joined: dict[str, tf.Tensor],
    ) -> dict[str, tf.Tensor]:
        """Negatives that the rows of a batch share, and for which row they are some."""
        users = joined["user"]
        if sampler.distribution == "in_batch":
            # Of the whole batch, whichever rows are here.
            places = _shuffle(tf.range(begin, begin + size), self._shuffle_seed(epoch), len(self.windows))
            this = weakref.ref(self)

            def take(rows: np.ndarray) -> np.ndarray:
                batches = this()
                assert batches is not None
                return batches.windows.targets[rows].ravel()

            shared = tf.numpy_function(take, [places], tf.int32, stateful=False)
            shared.set_shape([None])
        else:
            shared = sampler.sample(self._seed(_SHARED, step))
        # A target is a training item of its user, but for padding.
        is_negative = ~sampler.is_seen(shared, users) & (shared > 0)
        found = {"shared_items": shared, "is_shared_negative": is_negative}
        if "teacher_items" in joined:
            listed, batch = joined["teacher_items"], tf.size(users)
            rows = tf.repeat(tf.range(batch), tf.shape(listed)[1])
            found["is_shared_unlisted"] = is_negative & ~sampler.is_among(shared, rows, tf.reshape(listed, [-1]), batch)
        if sampler.log_ratio is not None:
            found["items_log_ratio"] = tf.gather(sampler.log_ratio, joined["items"])
            found["shared_log_ratio"] = tf.gather(sampler.log_ratio, shared)
            if "teacher_items" in joined:
                found["teacher_log_ratio"] = tf.gather(sampler.log_ratio, joined["teacher_items"])
        return found

    def _arrays(self) -> dict[str, np.ndarray | ShardedArray]:
        windows = self.windows
        arrays: dict[str, np.ndarray | ShardedArray] = {
            "user": windows.users,
            "sequence": windows.sequences,
            "target": windows.targets,
        }
        if self.teacher_items is not None:
            arrays["teacher_items"] = self.teacher_items
        if self.teacher_scores is not None:
            arrays["teacher_scores"] = self.teacher_scores
        return arrays

    def _rows(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The given rows of all arrays, and their histories."""
        # In NumPy: as tensors, the windows would be in memory a second time, and the teacher's lists, which may be a
        # memory map, would be read as a whole.
        # TensorFlow keeps the function until the process ends, so it must not keep the arrays; the dataset keeps self.
        this = weakref.ref(self)

        def take(rows: np.ndarray) -> list[np.ndarray]:
            batches = this()
            assert batches is not None
            taken = [array[rows] for array in batches._arrays().values()]
            if batches.histories is not None:
                items, kind = batches.histories
                taken.extend(items.window_histories(batches.windows, rows, kind))
            if batches.seen is not None:
                taken.extend(batches.seen.histories(batches.windows.users[rows]))
            return taken

        shapes = {name: array.shape[1:] for name, array in self._arrays().items()}
        if self.histories is not None:
            shapes |= {"history_items": (), "history_rows": ()}
        if self.seen is not None:
            shapes |= {"seen_items": (), "seen_rows": ()}
        dtypes = [tf.float16 if name == "teacher_scores" else tf.int32 for name in shapes]
        taken = tf.numpy_function(take, [indices], dtypes, stateful=False)
        for tensor, shape in zip(taken, shapes.values(), strict=True):
            tensor.set_shape((None, *shape))
        return dict(zip(shapes, taken, strict=True))

    def _shuffle_seed(self, epoch: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.stack([epoch, self.seed, _SHUFFLE]), tf.int32)

    def _seed(self, stream: int, step: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.stack([step, stream + self.seed * 100_003]), tf.int32)


def _shuffle(places: tf.Tensor, seed: tf.Tensor, rows: int) -> tf.Tensor:
    """Where the given places of a shuffled `range(rows)` point: a permutation that is never written out."""
    # tf.random.experimental.index_shuffle fixes 4 rounds, which leaves neighbours and whole batches correlated (0.03 a
    # place apart, 0.12 at 512 of 367,611); with 12 no correlation is left to see.
    max_index = tf.constant(rows - 1, tf.int64)
    # The operation refuses an empty index, which a replica gets where a batch has fewer rows than there are replicas.
    index = tf.concat([places, [0]], 0)
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=seed, max_index=max_index, rounds=_SHUFFLE_ROUNDS)[:-1]


def popularity_groups(items: np.ndarray, num_items: int, groups: int) -> np.ndarray:
    """Cuts the items, from the most to the least popular, into groups of equal total popularity.

    Source: Chen et al., "Unbiased Knowledge Distillation for Recommendation", WSDM 2023.

    Args:
        items: `[rows] int32`, the items of training rows; an item's popularity is how often it is there.
        num_items: number of items, the padding not counted.
        groups: how many, at least 1; some are empty where few items hold most of the rows.

    Returns:
        `[num_items + 1] int32`, the group of every item, 0 the most popular ones'; the padding is in group 0.
    """
    counts = np.bincount(items, minlength=num_items + 1)[1:]
    order = np.argsort(-counts, kind="stable")
    # By what lies above an item, so that the most popular one begins the first group.
    above = np.cumsum(counts[order]) - counts[order]
    found = np.zeros(num_items + 1, np.int32)
    found[order + 1] = np.minimum(above * groups // max(int(counts.sum()), 1), groups - 1)
    return found


def training_batches(
    data: SplitData,
    model: "SequenceRanker",
    lists: TeacherCache | None = None,
    *,
    batch_size: int,
    negatives: int,
    target_length: int,
    seed: int,
    user_dropout: float = 0.0,
    rank_samples: int = 0,
    teacher_scores: bool = False,
    shared_negatives: int = 0,
    negative_sampling: str = "uniform",
    list_noise: bool = False,
    seen: bool = False,
    item_groups: int = 0,
    short_windows: bool | None = None,
) -> TrainingBatches:
    """The batches that a ranker trains on.

    Args:
        data: whose training rows.
        model: says what its batches must hold.
        lists: the teacher's, or None.
        batch_size: rows of a global batch.
        negatives: negatives a target.
        target_length: T.
        seed: of shuffling and draws.
        user_dropout: share of rows whose user is replaced by the unknown one.
        rank_samples: items drawn for a group of rows; 0 for none.
        teacher_scores: whether batches hold the teacher's scores.
        shared_negatives: negatives that a batch shares; 0 for none.
        negative_sampling: their distribution, see `SharedSampler`.
        list_noise: whether batches hold random numbers for the teacher's lists.
        seen: whether batches hold the training items of their users.
        item_groups: popularity groups that batches name for the lists' items; 0 for none.
        short_windows: whether there are windows of fewer than L items; None: if the model asks for them.

    Raises:
        ValueError: the lists belong to other windows, or the model has no row for an unknown user.
    """
    short = model.short_windows if short_windows is None else short_windows
    windows = data.windows(model.sequence_length, target_length, short)
    if lists is not None and lists.manifest["windows"] != windows.fingerprint():
        raise ValueError(
            f"the teacher's lists belong to other windows than the {len(windows):,} of the split {data.name!r} with "
            f"L={model.sequence_length}, T={target_length}{', short ones included' * short}; make them for these"
        )
    if user_dropout and not model.unknown_user:
        raise ValueError("user_dropout needs a ranker with unknown_user=True, whose users' tables have a row for it")
    rows = data.users, data.items, data.num_users, data.num_items
    return TrainingBatches(
        windows,
        UnseenItemSampler(*rows),
        batch_size,
        negatives,
        seed,
        None if lists is None else lists.items,
        RankSampler(*rows, rank_samples) if rank_samples else None,
        (data.seen, model.looks_back) if model.has_history else None,
        user_dropout,
        data.num_users,
        model.noise_width if model.dropout_rate else 0,
        lists.scores if lists is not None and teacher_scores else None,
        SharedSampler(*rows, shared_negatives, negative_sampling) if shared_negatives else None,
        list_noise,
        data.seen if seen else None,
        popularity_groups(data.items, data.num_items, item_groups) if item_groups else None,
    )
