"""What is drawn at random for a batch: items a user has not seen, items to estimate a rank from, shared negatives."""

import numpy as np
import tensorflow as tf

from rd_tf.data.interactions import distinct_keys, user_offsets
from rd_tf.data.windows import user_blocks
from rd_tf.storage import InputError

_PHILOX = 1
# Numbers of 32 bits that the generator gives for one value of its counter.
_AT_ONCE = 4


def uniform_rows(seed: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, count: int) -> tf.Tensor:
    """Numbers in [0, 1) for some rows of a batch.

    Row r has the same numbers whichever rows are asked for, so that replicas draw for their own rows only, and together
    what one device would draw.

    Args:
        seed: `[2] int32`.
        first: `[]` integer, number of the first row.
        rows: `[]` integer, number of rows.
        count: numbers a row.

    Returns:
        `[rows, count] float32`.
    """
    return _rows(tf.raw_ops.StatelessRandomUniformV2, tf.float32, seed, first, rows, count)


def bit_rows(seed: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, count: int) -> tf.Tensor:
    """As `uniform_rows`, but `[rows, count] int32`, all 32 bits of them random."""
    return _rows(tf.raw_ops.StatelessRandomUniformFullIntV2, tf.int32, seed, first, rows, count)


def _rows(
    operation: "tf.Operation", dtype: tf.DType, seed: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, count: int
) -> tf.Tensor:
    # Every row begins with a counter of its own.
    counters = -(-count // _AT_ONCE)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    skipped = tf.cast(tf.cast(first, tf.int64) * counters, tf.uint64)
    shape = tf.stack([tf.cast(rows, tf.int32), counters * _AT_ONCE])
    drawn = operation(shape=shape, key=key, counter=counter + tf.stack([skipped, 0]), alg=_PHILOX, dtype=dtype)
    return drawn[:, :count]


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

    Attributes:
        full_users: how many users have seen every item; for them the padding, 0, is drawn.

    Raises:
        InputError: all users have seen every item.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> None:
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
        self.full_users = int(np.count_nonzero(counts >= num_items))
        if self.full_users == num_users:
            raise InputError(
                f"all {num_users} users have seen all {num_items} items in training, so there is nothing to learn from "
                "and no negatives can be drawn; prepare data with more items"
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
            `[batch, count] int32`; 0 for a user who has seen every item.
        """
        bits = bit_rows(seed, first, tf.size(users), count)
        fraction = tf.bitwise.bitwise_and(tf.cast(bits, tf.int64), 0xFFFFFFFF)
        before, end = tf.gather(self._ends, users)[:, None], tf.gather(self._ends, users + 1)[:, None]
        # floor(fraction * n / 2^32): whole-number arithmetic, so no item of a large catalogue is out of reach.
        nth = tf.bitwise.right_shift(fraction * (self._num_items - (end - before)), 32)
        nth = tf.cast(nth, tf.int32)
        items = nth + 1 + tf.cast(self._last_not_above(nth, before, end) - before, tf.int32)
        return tf.where(items <= self._num_items, items, 0) if self.full_users else items

    def _last_not_above(self, nth: tf.Tensor, before: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """The last place in (before, end] where `_unseen_below` is at most nth; `before` where there is none."""
        # Not tf.searchsorted: that searches the rows of all users, with a cache miss at almost every one of its steps.
        place = before + tf.zeros_like(nth, tf.int64)
        for power in reversed(range(self._longest.bit_length())):
            further = tf.minimum(place + 2**power, end)
            place = tf.where(tf.gather(self._unseen_below, further) <= nth, further, place)
        return place


# Rows that share one draw. The draw's rows of the item table are gathered once for all of them, and its scores are one
# small matrix product, where a draw for every row is bound by memory: 51,200 rows a step of 512.
GROUP = 8


class _Visits:
    """The training items of every user, looked up in the graph."""

    def __init__(self, users: np.ndarray, items: np.ndarray, num_users: int) -> None:
        self._offsets = tf.constant(user_offsets(users, num_users))
        self._items = tf.constant(items, tf.int32)

    def of(self, users: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The places in `users` `[batch] int32` and the items of all their visits, `[n] int32` each."""
        visits = tf.ragged.range(tf.gather(self._offsets, users), tf.gather(self._offsets, users + 1))
        starts, num_visits = visits.row_splits[1:-1, None], tf.size(visits.values, tf.int64)
        # Row numbers by counting the starts before: `value_rowids` writes out [batch, longest].
        # One more than there are visits: a last user without any begins behind them.
        rows = tf.cumsum(tf.scatter_nd(starts, tf.ones_like(starts[:, 0], tf.int32), [num_visits + 1]))[:-1]
        return rows, tf.gather(self._items, visits.values)


def _draw_from_strata(
    uniform: tf.Tensor, first: tf.Tensor, sizes: tf.Tensor, num_items: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Takes one item of every stratum of a catalogue that is rotated at random.

    Args:
        uniform: `[..., strata] float32` in [0, 1).
        first: `[strata] int32`, where a stratum begins, from 0.
        sizes: `[strata] float32`.
        num_items: number of items.
        seed: `[2] int32`, of `uniform`; the rotation has another one.

    Returns:
        items `[..., strata] int32`, from 1, their places before the rotation, from 0, and the rotation `[] int32`.
    """
    # Below 1, but the product may round up to the size.
    within = uniform * sizes
    places = first + tf.cast(tf.minimum(within, sizes - 1.0), tf.int32)
    turn = uniform_rows(tf.bitwise.invert(seed), 0, 1, 1)[0, 0]
    rotation = tf.minimum(tf.cast(turn * float(num_items), tf.int32), num_items - 1)
    rotated = places + rotation
    return tf.where(rotated < num_items, rotated, rotated - num_items) + 1, places, rotation


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
        self._visits = _Visits(users, items, num_users)
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
        # The rotation is the same for all parts of a batch.
        items, places, rotation = _draw_from_strata(uniform, self._first, self._sizes, self._num_items, seed)
        return items, self._is_unseen(users, places, rotation)

    def _is_unseen(self, users: tf.Tensor, places: tf.Tensor, rotation: tf.Tensor) -> tf.Tensor:
        row, seen = self._visits.of(users)
        place = seen - 1 - rotation
        place = tf.where(place < 0, place + self._num_items, place)
        stratum = tf.gather(self._stratum, place)
        drawn = row // GROUP * self.samples + stratum
        hits = tf.boolean_mask(
            row * self.samples + stratum, tf.equal(tf.gather(tf.reshape(places, [-1]), drawn), place)
        )
        unseen = tf.ones([tf.size(users) * self.samples], tf.bool)
        unseen = tf.tensor_scatter_nd_update(unseen, hits[:, None], tf.zeros_like(hits, tf.bool))
        return tf.reshape(unseen, [-1, self.samples])


DISTRIBUTIONS = ("uniform", "popularity", "in_batch")


class SharedSampler:
    """Draws items that all rows of a batch share as negatives, and tells which of them are none for which row.

    Shared, a thousand negatives a row cost one matrix product. A draw depends on the seed alone, so replicas draw the
    same. Memory is 4 bytes a training row, 4 an item and 8 a user.

    Args:
        users: `[rows] int32`, training rows, sorted.
        items: `[rows] int32`, from 1.
        num_users: number of users.
        num_items: number of items, the padding not counted.
        samples: items a draw; with "uniform" the catalogue is the most there is to draw.
        distribution: "uniform", every item alike and none twice; "popularity", by the number of training rows; or
            "in_batch", the targets of the batch's rows, which follow popularity by themselves.

    Attributes:
        log_ratio: `[num_items + 1] float32`, log of how much more often an item is drawn than by a uniform draw, which
            is taken off its logit; None for a uniform draw, where it is 0. Source: Bengio & Senecal, IEEE Transactions
            on Neural Networks 2008; for shared negatives of recommenders Yi et al., RecSys 2019.

    Raises:
        ValueError: fewer than 1 sample, or an unknown distribution.
    """

    def __init__(
        self,
        users: np.ndarray,
        items: np.ndarray,
        num_users: int,
        num_items: int,
        samples: int,
        distribution: str = "uniform",
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1; received {samples}")
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {', '.join(DISTRIBUTIONS)}; received {distribution!r}")
        self.distribution = distribution
        self.samples = min(samples, num_items) if distribution == "uniform" else samples
        self._num_items = num_items
        self._visits = _Visits(users, items, num_users)
        self.log_ratio = None
        if distribution != "uniform":
            share = np.bincount(items, minlength=num_items + 1) / len(items)
            # An item that is never drawn needs no correction; a target always has a row.
            self.log_ratio = tf.constant(np.log(np.where(share > 0, share * num_items, 1.0)), tf.float32)
            self._below = tf.constant(np.cumsum(share), tf.float32)

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws for a batch, but for "in_batch", whose draw is the batch's targets: `[samples] int32`.

        The unit interval is cut into as many strata as there are samples, and each gives one item, which varies less
        than independent draws do.

        Args:
            seed: `[2] int32`.
        """
        uniform = uniform_rows(seed, 0, 1, self.samples)[0]
        if self.distribution == "popularity":
            points = (tf.range(self.samples, dtype=tf.float32) + uniform) / float(self.samples)
            return tf.minimum(tf.searchsorted(self._below, points, side="right"), self._num_items)
        # In whole numbers: in float32 neighbouring strata of a large catalogue would round to the same item.
        strata = np.arange(self.samples + 1, dtype=np.int64) * self._num_items // self.samples
        first, sizes = tf.constant(strata[:-1], tf.int32), tf.constant(np.diff(strata), tf.float32)
        return _draw_from_strata(uniform, first, sizes, self._num_items, seed)[0]

    def is_among(self, shared: tf.Tensor, rows: tf.Tensor, items: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
        """Which shared items are among some items of a row.

        Args:
            shared: `[samples] int32`.
            rows: `[n] int32`, rows of the batch.
            items: `[n] int32`, an item of each; 0 = none.
            batch: `[] int32`, rows of the batch.

        Returns:
            `[batch, samples] bool`.
        """
        samples = tf.size(shared)
        # Where an item stands in the draw; where it stands twice, one of the places.
        place = tf.fill([self._num_items + 1], -1)
        place = tf.tensor_scatter_nd_update(place, shared[:, None], tf.range(samples))
        found = tf.gather(place, items)
        cells = tf.boolean_mask(rows * samples + found, (found >= 0) & (items > 0))
        among = tf.zeros([batch * samples], tf.bool)
        among = tf.tensor_scatter_nd_update(among, cells[:, None], tf.ones_like(cells, tf.bool))
        among = tf.reshape(among, tf.stack([batch, samples]))
        if self.distribution == "uniform":
            return among
        return tf.gather(among, tf.gather(place, shared), axis=1)

    def is_seen(self, shared: tf.Tensor, users: tf.Tensor) -> tf.Tensor:
        """Which shared items the row's user has seen in training: `[batch, samples] bool`.

        Args:
            shared: `[samples] int32`.
            users: `[batch] int32`.
        """
        rows, seen = self._visits.of(users)
        return self.is_among(shared, rows, seen, tf.size(users))
