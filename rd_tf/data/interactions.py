"""Who visited what, when: arrays and their vocabulary."""

import dataclasses

import numpy as np

from rd_tf.data.fingerprint import fingerprint


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
    # Numbers of the users' own type: of another one, all users would be converted first.
    return np.searchsorted(users, np.arange(num_users + 1, dtype=users.dtype)).astype(np.int64)
