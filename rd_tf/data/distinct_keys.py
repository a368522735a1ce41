"""Sets of (user, item) pairs as sorted whole numbers."""

import numpy as np


def distinct_keys(users: np.ndarray, items: np.ndarray, num_item_rows: int) -> np.ndarray:
    """Gives every distinct pair of a user and an item as one number.

    Args:
        users: `[rows]` whole numbers from 0, in any order.
        items: `[rows]` whole numbers from 0.
        num_item_rows: more than the highest item.

    Returns:
        `[distinct] int64`, `user * num_item_rows + item`, ascending.
    """
    keys = users.astype(np.int64)
    keys *= num_item_rows
    keys += items
    keys.sort()
    # Not np.unique: its hash table is many times slower on large arrays, and their memory stays with the process.
    is_first = np.empty(len(keys), bool)
    is_first[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    return keys[is_first]
