"""Uniform draws from the items that a user has not seen."""

import numpy as np
import tensorflow as tf

from rd_tf.errors import InputError


class UnseenItemSampler:
    """Draws items of the catalogue minus the user's training items, in the graph, without a [users, items] matrix.

    The r-th unseen item of a user (r from 0) is `r + 1 + s`, where s is how many of the user's seen items lie below it;
    s comes from one binary search in the sorted seen items, each stored as the number of unseen items below it. Memory
    is 8 bytes a training row, and every draw is exact: nothing is rejected and drawn again.

    Args:
        users: `[rows] int32`, training rows in any order.
        items: `[rows] int32`, from 1.
        num_users: number of users.
        num_items: number of items, the padding not counted.
        user_ids: raw ids, for the message.

    Raises:
        InputError: a user has seen every item.
    """

    def __init__(
        self, users: np.ndarray, items: np.ndarray, num_users: int, num_items: int, user_ids: list[str] | None = None
    ) -> None:
        pairs = np.unique(users.astype(np.int64) * (num_items + 1) + items)
        owners, seen = np.divmod(pairs, num_items + 1)
        starts = np.searchsorted(owners, np.arange(num_users + 1))
        counts = np.diff(starts)
        if (counts >= num_items).any():
            full = np.flatnonzero(counts >= num_items)
            name = f"number {full[0]}" if user_ids is None else repr(user_ids[full[0]])
            raise InputError(
                f"{len(full)} users, the first of them {name}, have seen all {num_items} items in training, so no "
                "negatives can be drawn for them; leave them out of the input or add items"
            )
        unseen_below = seen - 1 - (np.arange(len(seen)) - starts[owners])
        self._num_items = num_items
        self._keys = tf.constant(owners * (num_items + 1) + unseen_below, tf.int64)
        self._starts = tf.constant(starts[:-1], tf.int64)
        self._unseen_counts = tf.constant(num_items - counts, tf.int64)

    def sample(self, users: tf.Tensor, count: int, seed: tf.Tensor) -> tf.Tensor:
        """Draws items with replacement.

        Args:
            users: `[batch] int32`.
            count: draws a user.
            seed: `[2] int32`; the same seed gives the same draws.

        Returns:
            `[batch, count] int32`.
        """
        users = tf.cast(users, tf.int64)
        shape = tf.stack([tf.shape(users)[0], count])
        bits = tf.random.stateless_uniform(shape, seed, None, None, tf.int32)
        fraction = tf.bitwise.bitwise_and(tf.cast(bits, tf.int64), 0xFFFFFFFF)
        # floor(fraction * n / 2^32): whole-number arithmetic, so no item of a large catalogue is out of reach.
        nth = tf.bitwise.right_shift(fraction * tf.gather(self._unseen_counts, users)[:, None], 32)
        keys = users[:, None] * (self._num_items + 1) + nth
        below = tf.searchsorted(self._keys, tf.reshape(keys, [-1]), side="right", out_type=tf.int64)
        below = tf.reshape(below, shape) - tf.gather(self._starts, users)[:, None]
        return tf.cast(nth + 1 + below, tf.int32)
