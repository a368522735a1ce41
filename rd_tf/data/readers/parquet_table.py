"""Parquet files as columns."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rd_tf.data.readers.open_input import open_input
from rd_tf.data.readers.raw_table import RawTable, shorten
from rd_tf.data.readers.text_lines import readable
from rd_tf.errors import InputError

_PIECE = 2**19


def read_parquet_table(path: str, columns: dict[str, str]) -> RawTable:
    """Reads one Parquet file.

    Args:
        path: the file.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names.

    Raises:
        InputError: the file is missing, damaged, no Parquet file, or lacks a column.
    """
    with _opened(path, columns) as file:
        table = file.read(columns=list(columns.values()))
    return _raw(table, columns)


def read_parquet_pieces(path: str, columns: dict[str, str]) -> Iterator[RawTable]:
    """Reads one Parquet file, some rows at a time; otherwise as `read_parquet_table`.

    Yields:
        One table at least.
    """
    names = list(columns.values())
    with _opened(path, columns) as file:
        if not file.metadata.num_rows:
            yield _raw(file.read(columns=names), columns)
        for batch in file.iter_batches(_PIECE, columns=names):
            yield _raw(pa.Table.from_batches([batch]), columns)


@contextlib.contextmanager
def _opened(path: str, columns: dict[str, str]) -> Iterator[pq.ParquetFile]:
    with readable(path):
        try:
            # Not read_table(): that would take path=value folders on the way for columns.
            with open_input(path) as stream, pq.ParquetFile(stream) as file:
                names = file.schema_arrow.names
                for flag, name in columns.items():
                    if names.count(name) != 1:
                        found = f"has {names.count(name)} columns" if name in names else "has no column"
                        there = ", ".join(map(shorten, names[:20]))
                        raise InputError(f"{path} {found} {name!r}, which --{flag} names; it has {there}")
                yield file
        # Damaged names of columns are no UTF-8.
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            first = str(error).splitlines()[0]
            raise InputError(f"{path} is not a Parquet file or is damaged ({first}); write it again") from None


def _raw(table: pa.Table, columns: dict[str, str]) -> RawTable:
    users, items, times = (_plain(table[name]) for name in columns.values())
    return RawTable(users, items, times, 0, lambda row: (f"row {(row or 0) + 1}", None))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    # Nobody has checked that text is UTF-8.
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return column.cast(pa.large_binary()) if is_text or pa.types.is_binary_view(kind) else column
