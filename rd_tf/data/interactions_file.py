"""One Parquet file of interactions, the same bytes whoever writes it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rd_tf.errors import InputError

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
