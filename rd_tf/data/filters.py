"""Repeated visits, k-core, and the numbering of what remains."""

import dataclasses

import numpy as np

from rd_tf.data.interactions import Interactions

DUPLICATES = ("keep_last", "keep_first", "keep_all")


def drop_duplicates(users: np.ndarray, items: np.ndarray, timestamps: np.ndarray, how: str) -> np.ndarray:
    """Says which of a user's visits to one item stay.

    Args:
        users: `[rows]` integer codes from 0.
        items: `[rows]` integer codes from 0.
        timestamps: `[rows] int64`; of equal times the later row counts as the later visit.
        how: "keep_last", "keep_first" or "keep_all".

    Returns:
        `[rows] bool`, true for rows that stay.

    Raises:
        ValueError: an unknown `how`.
    """
    if how not in DUPLICATES:
        raise ValueError(f"duplicates must be one of {', '.join(DUPLICATES)}; received {how!r}")
    keep = np.ones(len(users), bool)
    if how == "keep_all" or not len(users):
        return keep
    pairs = _pairs(users, items)
    order = np.lexsort((timestamps, pairs))
    repeats = pairs[order[1:]] == pairs[order[:-1]]
    keep[order[:-1][repeats] if how == "keep_last" else order[1:][repeats]] = False
    return keep


@dataclasses.dataclass(frozen=True)
class Core:
    """What a k-core leaves.

    Attributes:
        keep: `[rows] bool`.
        rounds: passes in which something was dropped.
    """

    keep: np.ndarray
    rounds: int


def k_core(users: np.ndarray, items: np.ndarray, min_user_items: int, min_item_users: int) -> Core:
    """Drops users with few distinct items and items with few distinct users until none is left to drop.

    Args:
        users: `[rows]` integer codes from 0.
        items: `[rows]` integer codes from 0.
        min_user_items: distinct items a user needs.
        min_item_users: distinct users an item needs.
    """
    if (min_user_items <= 1 and min_item_users <= 1) or not len(users):
        return Core(np.ones(len(users), bool), 0)
    good_users = np.ones(int(users.max()) + 1, bool)
    good_items = np.ones(int(items.max()) + 1, bool)
    first = np.unique(_pairs(users, items), return_index=True)[1]
    pair_users, pair_items, rounds = users[first], items[first], 0
    while True:
        good_users &= np.bincount(pair_users, minlength=len(good_users)) >= min_user_items
        good_items &= np.bincount(pair_items, minlength=len(good_items)) >= min_item_users
        alive = good_users[pair_users] & good_items[pair_items]
        if alive.all():
            return Core(good_users[users] & good_items[items], rounds)
        pair_users, pair_items, rounds = pair_users[alive], pair_items[alive], rounds + 1


def to_interactions(
    users: np.ndarray, items: np.ndarray, timestamps: np.ndarray, user_ids: list[str], item_ids: list[str]
) -> Interactions:
    """Numbers users and items in order of their first row and sorts the rows by user, then time.

    Args:
        users: `[rows]` codes into `user_ids`.
        items: `[rows]` codes into `item_ids`.
        timestamps: `[rows] int64`; rows of a user with equal times keep their order.
        user_ids: raw ids; those without a row are left out.
        item_ids: raw ids; those without a row are left out.
    """
    user_numbers, user_codes = _by_first_row(users, len(user_ids))
    item_numbers, item_codes = _by_first_row(items, len(item_ids))
    users, items = user_numbers[users], item_numbers[items] + 1
    order = np.lexsort((timestamps, users))
    return Interactions(
        users[order].astype(np.int32),
        items[order].astype(np.int32),
        timestamps[order].astype(np.int64),
        [user_ids[code] for code in user_codes],
        [item_ids[code] for code in item_codes],
    )


def _pairs(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    return users.astype(np.int64) * (int(items.max()) + 1) + items


def _by_first_row(codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """From an old code to its new number, and the old codes in their new order."""
    rows = len(codes)
    first = np.full(size, rows)
    # With repeated indices the last assignment stands, so the rows are assigned from the last to the first.
    first[codes[::-1]] = np.arange(rows - 1, -1, -1)
    present = np.flatnonzero(first < rows)
    in_order = present[np.argsort(first[present])]
    numbers = np.full(size, -1, np.int32)
    numbers[in_order] = np.arange(len(in_order), dtype=np.int32)
    return numbers, in_order
