"""The shards of a dataset directory: where they are cut, what they are called, what the manifest says of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf.data.interactions_file import Rows, read_interactions
from rd_tf.errors import InputError

# The file of a dataset that is not sharded.
_WHOLE = "interactions.parquet"
_FIELDS = ("first_user", "users", "rows")
Entry = dict[str, int]


def shard_file(number: int, shards: int) -> str:
    """The name of a shard's file; of all interactions where the dataset is not sharded, which is `shards` = 0."""
    return f"interactions-{number:05}-of-{shards:05}.parquet" if shards else _WHOLE


def shard_bounds(num_users: int, shards: int) -> np.ndarray:
    """`[shards + 1] int64`: the first user of every shard and the number of users; sizes differ by one at most."""
    return np.arange(shards + 1, dtype=np.int64) * num_users // shards


def shard_entries(bounds: Sequence[int] | np.ndarray, rows: Sequence[int] | np.ndarray) -> list[Entry]:
    """What a manifest says of its shards.

    Args:
        bounds: as `shard_bounds` gives them.
        rows: rows of every shard.
    """
    return [
        {"first_user": int(first), "users": int(end - first), "rows": int(count)}
        for first, end, count in zip(bounds[:-1], bounds[1:], rows, strict=True)
    ]


def are_shard_entries(entries: Any, num_users: int, num_rows: int) -> bool:
    """Whether a manifest's "shards" cut these users and rows into ranges without gaps."""
    if not isinstance(entries, list) or not entries:
        return False
    users, rows = 0, 0
    for entry in entries:
        if not isinstance(entry, dict) or any(type(entry.get(field)) is not int for field in _FIELDS):
            return False
        if entry["first_user"] != users or entry["users"] < 0 or entry["rows"] < 0:
            return False
        users, rows = users + entry["users"], rows + entry["rows"]
    return (users, rows) == (num_users, num_rows)


def entries_of(manifest: dict[str, Any]) -> list[Entry]:
    """The shards of a dataset; a dataset that is not sharded is one shard."""
    whole = {"first_user": 0, "users": manifest["users"], "rows": manifest["interactions"]}
    return manifest.get("shards", [whole])


def read_shard(directory: Path, manifest: dict[str, Any], number: int) -> Rows:
    """Reads the rows of one shard.

    Args:
        directory: of the dataset.
        manifest: of the dataset.
        number: from 0.

    Returns:
        `[rows] int32` users, numbered in the whole dataset, `[rows] int32` items, `[rows] int64` timestamps.

    Raises:
        InputError: the file is missing or damaged, or does not hold the rows and users of its manifest.
    """
    entry = entries_of(manifest)[number]
    path = directory / shard_file(number, len(manifest.get("shards", [])))
    users, items, timestamps = read_interactions(path)
    first, end = entry["first_user"], entry["first_user"] + entry["users"]
    if len(users) != entry["rows"]:
        raise InputError(f"{path} holds {len(users)} rows and not {entry['rows']}; prepare the data again")
    if len(users) and (users[0] < first or users[-1] >= end or np.any(users[1:] < users[:-1])):
        raise InputError(f"{path} does not hold the users {first} to {end - 1} in their order; prepare the data again")
    return users, items, timestamps
