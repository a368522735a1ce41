"""Uniform draws from the items that a user has not seen."""

import numpy as np
import tensorflow as tf

from rd_tf.data.distinct_keys import distinct_keys
from rd_tf.data.row_random import bit_rows
from rd_tf.data.user_blocks import user_blocks
from rd_tf.errors import InputError


class UnseenItemSampler:
    """Draws items of the catalogue minus the user's training items, in the graph, without a [users, items] matrix.

    The r-th unseen item of a user (r from 0) is `r + 1 + s`, where s is how many of the user's seen items lie below it;
    s comes from a binary search in the user's sorted seen items, each stored as the number of unseen items below it.
    Memory is 4 bytes a training row and 8 a user, and every draw is exact: nothing is rejected and drawn again.

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
        if (users[1:] < users[:-1]).any():
            order = np.argsort(users, kind="stable")
            users, items = users[order], items[order]
        # One number before all others, for the search of a user who has seen nothing.
        unseen_below, end = np.zeros(len(users) + 1, np.int32), 1
        counts = np.zeros(num_users, np.int64)
        for block in user_blocks(users):
            owners, seen = np.divmod(distinct_keys(users[block], items[block], num_items + 1), num_items + 1)
            first = owners[0]
            block_counts = np.bincount(owners - first)
            starts = np.cumsum(block_counts) - block_counts
            counts[first : first + len(block_counts)] = block_counts
            unseen_below[end : end + len(seen)] = seen - 1 - (np.arange(len(seen)) - starts[owners - first])
            end += len(seen)
        if (counts >= num_items).any():
            full = np.flatnonzero(counts >= num_items)
            name = f"number {full[0]}" if user_ids is None else repr(user_ids[full[0]])
            raise InputError(
                f"{len(full)} users, the first of them {name}, have seen all {num_items} items in training, so no "
                "negatives can be drawn for them; leave them out of the input or add items"
            )
        self._num_items = num_items
        self._unseen_below = tf.constant(unseen_below[:end])
        self._ends = tf.constant(np.concatenate([[0], np.cumsum(counts)]))
        self._longest = int(counts.max(initial=0))

    def sample(self, users: tf.Tensor, count: int, seed: tf.Tensor, first: int | tf.Tensor = 0) -> tf.Tensor:
        """Draws items with replacement.

        Args:
            users: `[batch] int32`.
            count: draws a user.
            seed: `[2] int32`; the same seed gives the same draws.
            first: number of the first user's row, where the users are a part of a batch: parts draw what the whole
                batch would.

        Returns:
            `[batch, count] int32`.
        """
        bits = bit_rows(seed, first, tf.size(users), count)
        fraction = tf.bitwise.bitwise_and(tf.cast(bits, tf.int64), 0xFFFFFFFF)
        before, end = tf.gather(self._ends, users)[:, None], tf.gather(self._ends, users + 1)[:, None]
        # floor(fraction * n / 2^32): whole-number arithmetic, so no item of a large catalogue is out of reach.
        nth = tf.bitwise.right_shift(fraction * (self._num_items - (end - before)), 32)
        nth = tf.cast(nth, tf.int32)
        return nth + 1 + tf.cast(self._last_not_above(nth, before, end) - before, tf.int32)

    def _last_not_above(self, nth: tf.Tensor, before: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """The last place in (before, end] where `_unseen_below` is at most nth; `before` where there is none."""
        # Not tf.searchsorted: that searches the rows of all users, with a cache miss at almost every one of its steps.
        place = before + tf.zeros_like(nth, tf.int64)
        for power in reversed(range(self._longest.bit_length())):
            further = tf.minimum(place + 2**power, end)
            place = tf.where(tf.gather(self._unseen_below, further) <= nth, further, place)
        return place
