"""What benchmarks run on: a dataset directory, or a random world of a given size."""

import numpy as np

from rd_tf.data.dataset import load_dataset
from rd_tf.data.interactions import Interactions

# Gowalla as the authors publish it: users, items, training windows of L = 5, T = 1 in the test split.
GOWALLA = (13_149, 14_009, 367_611)
_WINDOW = 6


def load_world(dataset: str, seed: int) -> Interactions:
    """Reads a dataset directory or, with an empty name, makes a random world of Gowalla's size.

    Raises:
        InputError: the directory cannot be used.
    """
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
