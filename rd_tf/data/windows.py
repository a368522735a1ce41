"""Training windows: L recent items and the T items that followed them."""

import dataclasses
import hashlib

import numpy as np

from rd_tf.data.interactions import Interactions, user_offsets


@dataclasses.dataclass(frozen=True)
class Windows:
    """Every run of L + T consecutive items of every user, step 1, in the order (user, position).

    A user with fewer than L + T items has one window, padded with 0 on the left.

    Attributes:
        users: `[windows] int32`.
        positions: `[windows] int32`, where in the user's training history the window's last item stands (from 0).
            (user, position) names a window.
        sequences: `[windows, L] int32`, oldest first.
        targets: `[windows, T] int32`.
    """

    users: np.ndarray
    positions: np.ndarray
    sequences: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all windows."""
        digest = hashlib.sha256(f"{self.sequences.shape[1]},{self.targets.shape[1]}".encode())
        for array in (self.users, self.positions, self.sequences, self.targets):
            digest.update(np.ascontiguousarray(array, "<i4").data)
        return digest.hexdigest()


def make_windows(
    interactions: Interactions, train: np.ndarray, sequence_length: int, target_length: int = 1
) -> Windows:
    """Cuts the training rows into windows.

    Args:
        interactions: the dataset.
        train: `[rows] bool`, the rows to train on.
        sequence_length: L, at least 1.
        target_length: T, at least 1.

    Raises:
        ValueError: a length below 1.
    """
    if sequence_length < 1 or target_length < 1:
        raise ValueError(f"window lengths must be at least 1; received L={sequence_length}, T={target_length}")
    users, items = interactions.users[train], interactions.items[train]
    offsets = user_offsets(users, interactions.num_users)
    counts = np.diff(offsets)
    length = sequence_length + target_length
    per_user = np.where(counts >= length, counts - length + 1, np.minimum(counts, 1))
    window_users = np.repeat(np.arange(interactions.num_users), per_user)
    first = np.cumsum(per_user) - per_user
    nth = np.arange(len(window_users)) - np.repeat(first, per_user)
    positions = np.minimum(length, counts)[window_users] - 1 + nth
    rows = _rows_before(items, offsets[window_users], positions, length)
    return Windows(
        window_users.astype(np.int32),
        positions.astype(np.int32),
        np.ascontiguousarray(rows[:, :sequence_length]),
        np.ascontiguousarray(rows[:, sequence_length:]),
    )


def last_sequences(interactions: Interactions, train: np.ndarray, sequence_length: int) -> np.ndarray:
    """The L most recent training items of every user, what a query after training starts from.

    Returns:
        `[users, L] int32`, oldest first, padded with 0 on the left.
    """
    users, items = interactions.users[train], interactions.items[train]
    offsets = user_offsets(users, interactions.num_users)
    return _rows_before(items, offsets[:-1], np.diff(offsets) - 1, sequence_length)


def _rows_before(items: np.ndarray, starts: np.ndarray, positions: np.ndarray, length: int) -> np.ndarray:
    offset = positions[:, None] - np.arange(length - 1, -1, -1)
    # A position before the user's first item is padding; the appended 0 keeps the gather legal when there are no items.
    padded = np.append(items, 0).astype(np.int32)
    return np.where(offset >= 0, padded[np.where(offset >= 0, starts[:, None] + offset, 0)], 0).astype(np.int32)
