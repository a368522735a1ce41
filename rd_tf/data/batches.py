"""The tf.data join of windows, negatives and the teacher's lists."""

import dataclasses
import weakref
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from rd_tf.data.sampling import GROUP, RankSampler, UnseenItemSampler, uniform_rows
from rd_tf.data.teacher_lists import ShardedArray
from rd_tf.data.windows import UserItems, Windows

# Streams of random numbers that must not repeat each other.
_SHUFFLE, _NEGATIVES, _RANK_SAMPLES, _UNKNOWN_USERS, _NOISE = range(5)
_SHUFFLE_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """Batches of training windows, shuffled anew and joined with new negatives in every epoch.

    A batch is computed from (seed, step) alone, so that training can begin at any step and always sees the same data,
    and any number of replicas shares one global batch, draws and all. A replica joins its own rows only. It holds

    - `user` `[b] int32` (the number of users in place of some, with a user dropout), `sequence` `[b, L] int32`
    - `items` `[b, T + T * negatives] int32`: targets, then negatives; `labels` of the same shape, float32: 1, 0, and
      -1 for a target that is padding
    - `teacher_items` `[b, K] int32`, with a teacher
    - `sampled_items` `[groups, samples] int32` and `is_unseen` `[b, samples] bool` as `RankSampler.sample` gives them,
      with a rank sampler
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
            dataset = elements.map(
                lambda element: batch(element // here, first_replica + element % here), num_parallel_calls=1
            )
            return dataset.prefetch(4 * here)

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
            indices = _shuffle(places, tf.cast(tf.stack([epoch, self.seed, _SHUFFLE]), tf.int32), rows)
            joined = self._rows(indices)
            user, target = joined["user"], joined.pop("target")
            negative = self.sampler.sample(user, num_targets * self.negatives, self._seed(_NEGATIVES, step), first)
            positive_labels = tf.where(target > 0, 1.0, -1.0)
            joined["items"] = tf.concat([target, negative], 1)
            joined["labels"] = tf.concat([positive_labels, tf.zeros_like(negative, tf.float32)], 1)
            joined["global_size"] = tf.cast(size, tf.int32)
            if self.rank_sampler is not None:
                seed = self._seed(_RANK_SAMPLES, step)
                joined["sampled_items"], joined["is_unseen"] = self.rank_sampler.sample(user, seed, first)
            if self.user_dropout:
                drawn = uniform_rows(self._seed(_UNKNOWN_USERS, step), first, tf.size(user), 1)[:, 0]
                joined["user"] = tf.where(drawn < self.user_dropout, self.num_users, user)
            if self.noise_width:
                joined["noise"] = uniform_rows(self._seed(_NOISE, step), first, tf.size(user), self.noise_width)
            return joined

        return batch

    def _arrays(self) -> dict[str, np.ndarray | ShardedArray]:
        windows = self.windows
        arrays: dict[str, np.ndarray | ShardedArray] = {
            "user": windows.users,
            "sequence": windows.sequences,
            "target": windows.targets,
        }
        if self.teacher_items is not None:
            arrays["teacher_items"] = self.teacher_items
        return arrays

    def _rows(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The given rows of all arrays, and their histories."""
        # In NumPy: as tensors the windows would be in memory twice, and the teacher's lists, a memory map, at all.
        # TensorFlow keeps the function until the process ends, so it must not keep the arrays; the dataset keeps self.
        this = weakref.ref(self)

        def take(rows: np.ndarray) -> list[np.ndarray]:
            batches = this()
            assert batches is not None
            taken = [array[rows] for array in batches._arrays().values()]
            if batches.histories is not None:
                items, kind = batches.histories
                taken.extend(items.window_histories(batches.windows, rows, kind))
            return taken

        shapes = {name: array.shape[1:] for name, array in self._arrays().items()}
        if self.histories is not None:
            shapes |= {"history_items": (), "history_rows": ()}
        taken = tf.numpy_function(take, [indices], [tf.int32] * len(shapes), stateful=False)
        for tensor, shape in zip(taken, shapes.values(), strict=True):
            tensor.set_shape((None, *shape))
        return dict(zip(shapes, taken, strict=True))

    def _seed(self, stream: int, step: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.stack([step, stream + self.seed * 100_003]), tf.int32)


def _shuffle(places: tf.Tensor, seed: tf.Tensor, rows: int) -> tf.Tensor:
    """Where the given places of a shuffled `range(rows)` point: a permutation that is never written out."""
    # tf.random.experimental.index_shuffle fixes 4 rounds, which leaves neighbours and whole batches correlated (0.03 a
    # place apart, 0.12 at 512 of 367,611); with 12 no correlation is left to see.
    max_index = tf.constant(rows - 1, tf.int64)
    # It takes no empty index, which a replica has where a batch is smaller than the replicas are many.
    index = tf.concat([places, [0]], 0)
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=seed, max_index=max_index, rounds=_SHUFFLE_ROUNDS)[:-1]
