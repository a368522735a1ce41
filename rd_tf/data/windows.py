"""Training windows: L recent items and the T items that followed them."""

import dataclasses
import hashlib

import numpy as np

from rd_tf.data.interactions import Interactions, user_offsets

# Windows that are cut at once: tens of MB of temporaries.
_BLOCK = 2**18


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
    items, offsets = interactions.items[train], user_offsets(interactions.users[train], interactions.num_users)
    counts = np.diff(offsets)
    length = sequence_length + target_length
    per_user = np.where(counts >= length, counts - length + 1, np.minimum(counts, 1))
    users = np.repeat(np.arange(interactions.num_users, dtype=np.int32), per_user)
    # A window's number less this is the position of its last item.
    number_at_0 = np.cumsum(per_user) - per_user - np.minimum(length, counts) + 1
    positions = np.empty(len(users), np.int32)
    sequences = np.empty((len(users), sequence_length), np.int32)
    targets = np.empty((len(users), target_length), np.int32)
    for begin in range(0, len(users), _BLOCK):
        block = slice(begin, min(begin + _BLOCK, len(users)))
        positions[block] = np.arange(block.start, block.stop) - number_at_0[users[block]]
        rows = _rows_before(items, offsets[users[block]], positions[block], length)
        sequences[block], targets[block] = rows[:, :sequence_length], rows[:, sequence_length:]
    return Windows(users, positions, sequences, targets)


def last_sequences(interactions: Interactions, train: np.ndarray, sequence_length: int) -> np.ndarray:
    """The L most recent training items of every user, what a query after training starts from.

    Returns:
        `[users, L] int32`, oldest first, padded with 0 on the left.
    """
    items, offsets = interactions.items[train], user_offsets(interactions.users[train], interactions.num_users)
    counts = np.diff(offsets)
    sequences = np.empty((len(counts), sequence_length), np.int32)
    for begin in range(0, len(counts), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        sequences[block] = _rows_before(items, offsets[:-1][block], counts[block] - 1, sequence_length)
    return sequences


def _rows_before(items: np.ndarray, starts: np.ndarray, positions: np.ndarray, length: int) -> np.ndarray:
    rows = np.zeros((len(positions), length), np.int32)
    for column in range(length):
        offset = positions - (length - 1 - column)
        # A position before the user's first item is padding.
        inside = offset >= 0
        rows[inside, column] = items[(starts + offset)[inside]]
    return rows
