"""Items drawn to estimate where the student ranks the teacher's items."""

import numpy as np
import tensorflow as tf

from rd_tf.data.interactions import user_offsets
from rd_tf.data.row_random import uniform_rows

# Rows that share one draw. The draw's rows of the item table are gathered once for all of them, and its scores are one
# small matrix product, where a draw for every row is bound by memory: 51,200 rows a step of 512.
GROUP = 8


class RankSampler:
    """Draws items uniformly from the catalogue, one draw for every `GROUP` rows, and tells who has seen which.

    A draw of n items cuts the catalogue, rotated by a random offset, into n strata of equal size and takes one item of
    each. So every item is equally likely, none comes twice, and a rank estimated from the draw varies less than one
    from n independent items. Which item a user has seen is read off in the user's own list: an item can only have come
    from its own stratum, so nothing is sorted or searched. Memory is 4 bytes a training row, 4 an item and 8 a user.

    Args:
        users: `[rows] int32`, training rows, sorted.
        items: `[rows] int32`, from 1.
        num_users: number of users.
        num_items: number of items, the padding not counted.
        samples: epsilon, items a draw; the catalogue is the most there is to draw.

    Raises:
        ValueError: fewer than 1 sample.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, num_users: int, num_items: int, samples: int) -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1; received {samples}")
        self.samples = min(samples, num_items)
        self._num_items = num_items
        self._offsets = tf.constant(user_offsets(users, num_users))
        self._seen = tf.constant(items, tf.int32)
        stratum = np.arange(num_items, dtype=np.int64) * self.samples // num_items
        first, sizes = np.unique(stratum, return_index=True, return_counts=True)[1:]
        self._stratum = tf.constant(stratum, tf.int32)
        self._first, self._sizes = tf.constant(first, tf.int32), tf.constant(sizes, tf.float32)

    def sample(self, users: tf.Tensor, seed: tf.Tensor, first: int | tf.Tensor = 0) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws for a batch.

        Args:
            users: `[batch] int32`.
            seed: `[2] int32`; the same seed gives the same draws.
            first: number of the first user's row, a multiple of `GROUP`, where the users are a part of a batch: parts
                draw what the whole batch would.

        Returns:
            items `[groups, samples] int32`, groups = batch / `GROUP` rounded up: the first draw belongs to the first
            `GROUP` rows, the next to the next; and is_unseen `[batch, samples] bool`, false where the row's user has
            seen the item.
        """
        groups = (tf.size(users) + GROUP - 1) // GROUP
        uniform = uniform_rows(seed, first // GROUP, groups, self.samples)
        # The same for all parts of a batch, from another seed than the samples'.
        turn = uniform_rows(tf.bitwise.invert(seed), 0, 1, 1)[0, 0]
        # Below 1, but the product may round up to the size.
        within = uniform * self._sizes
        places = self._first + tf.cast(tf.minimum(within, self._sizes - 1.0), tf.int32)
        rotation = tf.minimum(tf.cast(turn * float(self._num_items), tf.int32), self._num_items - 1)
        rotated = places + rotation
        items = tf.where(rotated < self._num_items, rotated, rotated - self._num_items) + 1
        return items, self._is_unseen(users, places, rotation)

    def _is_unseen(self, users: tf.Tensor, places: tf.Tensor, rotation: tf.Tensor) -> tf.Tensor:
        visits = tf.ragged.range(tf.gather(self._offsets, users), tf.gather(self._offsets, users + 1))
        starts, num_visits = visits.row_splits[1:-1, None], tf.size(visits.values, tf.int64)
        # Row numbers by counting the starts before: `value_rowids` writes out [batch, longest].
        # One more than there are visits: a last user without any begins behind them.
        row = tf.cumsum(tf.scatter_nd(starts, tf.ones_like(starts[:, 0], tf.int32), [num_visits + 1]))[:-1]
        place = tf.gather(self._seen, visits.values) - 1 - rotation
        place = tf.where(place < 0, place + self._num_items, place)
        stratum = tf.gather(self._stratum, place)
        drawn = row // GROUP * self.samples + stratum
        hits = tf.boolean_mask(
            row * self.samples + stratum, tf.equal(tf.gather(tf.reshape(places, [-1]), drawn), place)
        )
        unseen = tf.ones([tf.size(users) * self.samples], tf.bool)
        unseen = tf.tensor_scatter_nd_update(unseen, hits[:, None], tf.zeros_like(hits, tf.bool))
        return tf.reshape(unseen, [-1, self.samples])
