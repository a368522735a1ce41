"""Check-ins as numbers, their fingerprint, and the filters: duplicates and the k-core."""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np


def fingerprint(
    users: Iterable[np.ndarray],
    items: Iterable[np.ndarray],
    timestamps: Iterable[np.ndarray],
    user_ids: Iterable[bytes],
    item_ids: Iterable[bytes],
) -> str:
    """SHA-256 (hex) of every row and every raw id: equal exactly when the data are equal.

    Each argument comes in parts of any length, one after another, so that no more than a part need be in memory.

    Args:
        users: `[rows]` numbers of users.
        items: `[rows]` numbers of items.
        timestamps: `[rows]` times.
        user_ids: UTF-8 of the raw ids, with a line break between two.
        item_ids: likewise.
    """
    digest = hashlib.sha256()
    for parts, dtype in ((users, "<i4"), (items, "<i4"), (timestamps, "<i8")):
        for part in parts:
            digest.update(np.ascontiguousarray(part, dtype).data)
    for texts in (user_ids, item_ids):
        for text in texts:
            digest.update(text)
        digest.update(b"\0")
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Interactions:
    """Interactions sorted by user, then time (equal times keep the order they arrived in).

    Attributes:
        users: `[rows] int32`, counted from 0.
        items: `[rows] int32`, counted from 1; 0 is the padding and never occurs.
        timestamps: `[rows] int64`, any unit that orders a user's rows.
        user_ids: raw id of every user, `user_ids[user]`.
        item_ids: raw id of every item, `item_ids[item - 1]`.
    """

    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    user_ids: list[str]
    item_ids: list[str]

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of items, the padding not counted."""
        return len(self.item_ids)

    @property
    def num_item_rows(self) -> int:
        """Rows of an item table: the items and the padding row 0."""
        return self.num_items + 1

    def __len__(self) -> int:
        return len(self.users)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of every row and every raw id: equal exactly when the data are equal."""
        ids = (["\n".join(each).encode()] for each in (self.user_ids, self.item_ids))
        return fingerprint([self.users], [self.items], [self.timestamps], *ids)


def user_offsets(users: np.ndarray, num_users: int) -> np.ndarray:
    """Where each user's rows begin in a user-sorted array: `[num_users + 1] int64`, the last entry is the row count."""
    # In the users' own dtype: with another one, NumPy would convert all users first.
    return np.searchsorted(users, np.arange(num_users + 1, dtype=users.dtype)).astype(np.int64)


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
