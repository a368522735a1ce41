"""What tells two sets of interactions apart."""

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
