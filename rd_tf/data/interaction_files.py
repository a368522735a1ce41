"""`interactions.parquet` of a dataset, whole or in one file a shard of users."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rd_tf.storage import InputError

# users, items and timestamps of the same rows.
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
_SCHEMA = pa.schema([("user", pa.int32()), ("item", pa.int32()), ("timestamp", pa.int64())])
# Rows of a group: a file written in one piece and one written in many must not differ.
_GROUP = 2**20


def write_interactions(file: str | Path | IO[bytes], parts: Iterable[Rows]) -> int:
    """Writes `[rows]` users `int32`, items `int32` and timestamps `int64`, given in parts of any length.

    Args:
        file: a path or a stream.
        parts: all rows in order; a million of them and one part are held in memory at a time.

    Returns:
        The number of rows.
    """
    rows = 0
    with pq.ParquetWriter(file, _SCHEMA) as writer:
        for group in _groups(parts):
            writer.write_table(group, _GROUP)
            rows += len(group)
    return rows


def read_interactions(path: Path) -> Rows:
    """Reads a file as three arrays of `[rows]`.

    Raises:
        InputError: it is missing, damaged, or holds something else.
    """
    try:
        # Not read_table(): that would take path=value folders on the way for columns.
        with open(path, "rb") as stream, pq.ParquetFile(stream) as file:
            table = file.read(columns=_SCHEMA.names).select(_SCHEMA.names)
    # Damaged names of columns are no UTF-8.
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); prepare the data again") from None
    if table.schema.types != _SCHEMA.types or any(column.null_count for column in table.columns):
        raise InputError(f"{path} cannot be read (it holds {table.schema.types}); prepare the data again")
    users, items, timestamps = (column.to_numpy() for column in table.columns)
    return users, items, timestamps


def _groups(parts: Iterable[Rows]) -> Iterator[pa.Table]:
    waiting = _SCHEMA.empty_table()
    for part in parts:
        arrays = [pa.array(array, field.type) for array, field in zip(part, _SCHEMA, strict=True)]
        waiting = pa.concat_tables([waiting, pa.table(arrays, _SCHEMA)])
        whole = len(waiting) // _GROUP * _GROUP
        for first in range(0, whole, _GROUP):
            yield waiting.slice(first, _GROUP).combine_chunks()
        # Combined, it is a copy that keeps no part alive.
        waiting = waiting.slice(whole).combine_chunks()
    if len(waiting):
        yield waiting


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
