"""One shard of a dataset directory, without the rest of it."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from rd_tf.data.dataset_directory import load_manifest
from rd_tf.data.dataset_shards import entries_of, read_shard


@dataclasses.dataclass(frozen=True)
class DatasetShard:
    """All interactions of some consecutive users, sorted by user, then time.

    Attributes:
        first_user: the first one's number in the whole dataset.
        num_users: how many they are.
        users: `[rows] int32`, numbers in the whole dataset.
        items: `[rows] int32`, counted from 1.
        timestamps: `[rows] int64`.
    """

    first_user: int
    num_users: int
    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


def load_shard(directory: str | os.PathLike[str], number: int) -> DatasetShard:
    """Reads one shard; where the dataset is not sharded, number 0 is everything.

    The fingerprint is the whole dataset's, so what is checked here is the number of rows and the users.

    Raises:
        InputError: it is missing or damaged, or is not what the manifest says.
        ValueError: the dataset has no shard of this number.
    """
    manifest = load_manifest(directory)
    entries = entries_of(manifest)
    if not 0 <= number < len(entries):
        raise ValueError(f"{directory} has the shards 0 to {len(entries) - 1}; received {number}")
    users, items, timestamps = read_shard(Path(directory), manifest, number)
    return DatasetShard(entries[number]["first_user"], entries[number]["users"], users, items, timestamps)
