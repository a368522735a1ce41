"""Reads check-ins: which layout a file has, and the rows of all files."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rd_tf.data.readers.checked_rows import CheckedFile, common_unit
from rd_tf.data.readers.files import RawTable, open_input, shorten
from rd_tf.data.readers.text import first_lines, read_text_pieces, read_text_table, readable
from rd_tf.storage import InputError

_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


def detect_format(path: str) -> str:
    """Tells a file's layout by its ending, and that of a .txt file by its first line.

    Returns:
        "csv", "tsv", "parquet", "snap" or "triples".

    Raises:
        InputError: neither the ending nor the first line tells.
    """
    name = path.lower().removesuffix(".gz")
    for ending, layout in _ENDINGS.items():
        if name.endswith(ending):
            return layout
    if not name.endswith(".txt"):
        raise InputError(
            f"{path}: its ending does not tell its layout; give --format (csv, tsv, parquet, snap or triples)"
        )
    line = next((line for line in first_lines(path) if line.strip()), b"")
    if line.count(b"\t") == 4:
        return "snap"
    if len(line.split()) == 3:
        return "triples"
    raise InputError(
        f"{path}: its first line is neither five tab-separated columns (snap) nor 'user item rating' (triples);"
        " give --format (csv, tsv, snap or triples)"
    )


def _layout(path: str, format: str) -> str:
    return detect_format(path) if format == "auto" else format


_PIECE = 2**19


def read_parquet_table(path: str, columns: dict[str, str]) -> RawTable:
    """Reads one Parquet file.

    Args:
        path: the file.
        columns: from the flags `user_column`, `item_column` and any others to column names.

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
    named = {flag: _plain(table[name]) for flag, name in columns.items()}
    return RawTable.of(named, 0, lambda row: (f"row {(row or 0) + 1}", None))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    # Nobody has checked that text is UTF-8.
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return column.cast(pa.large_binary()) if is_text or pa.types.is_binary_view(kind) else column


_WITH_NAMES = ("csv", "tsv", "parquet")


def columns_of(layout: str, columns: dict[str, str]) -> dict[str, str]:
    """From the flags `user_column`, `item_column`, `time_column` to column names, empty where the layout has none."""
    return columns if layout in _WITH_NAMES else dict.fromkeys(columns, "")


def checked_pieces(path: str, format: str, columns: dict[str, str], fractional: bool) -> CheckedFile:
    """Reads a file of any size in memory of some megabytes.

    Args:
        path: .csv, .tsv, .txt (plain or gzip) or .parquet.
        format: "csv", "tsv", "parquet", "snap", "triples", or "auto": by the ending.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names.
        fractional: as of `CheckedFile`.

    Raises:
        InputError: the layout is unknown; iterating raises it where the file cannot be used.
    """
    layout = _layout(path, format)
    pieces: Iterator[RawTable] = (
        read_parquet_pieces(path, columns) if layout == "parquet" else read_text_pieces(path, layout, columns)
    )
    return CheckedFile(path, pieces, columns_of(layout, columns), fractional=fractional)


class Tally:
    """Counts what is read of several files, and what is left out.

    Args:
        skip_bad_rows: leave out and count rows that cannot be read, rather than raise.

    Attributes:
        rows_read: readable and skipped rows.
        skipped: from the reason to the number of rows left out.
        first_skipped: where the first of them stands and what it holds; empty if there is none.
    """

    def __init__(self, skip_bad_rows: bool) -> None:
        self._skip_bad_rows = skip_bad_rows
        self.rows_read, self.skipped, self.first_skipped = 0, dict[str, int](), ""

    def add(self, rows_read: int, skipped: Mapping[str, int], first_skipped: str) -> None:
        """Counts another file.

        Raises:
            InputError: it has a row that cannot be read and must not be skipped.
        """
        if first_skipped and not self._skip_bad_rows:
            raise InputError(f"{first_skipped}; mend it or pass --skip_bad_rows")
        self.rows_read += rows_read
        self.first_skipped = self.first_skipped or first_skipped
        for reason, count in skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count


NamedTable = tuple[str, RawTable, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class CheckIns:
    """All readable rows of all files, in their order.

    Attributes:
        users: `[rows] int32` into `user_ids`.
        items: `[rows] int32` into `item_ids`.
        timestamps: `[rows] int64`.
        user_ids: distinct raw ids; may hold ids without rows.
        item_ids: distinct raw ids; may hold ids without rows.
        time_unit: what a timestamp counts, in words.
        rows_read: readable and skipped rows.
        skipped: from the reason to the number of rows left out.
        first_skipped: where the first of them stands and what it holds; empty if there is none.
    """

    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    user_ids: list[str]
    item_ids: list[str]
    time_unit: str
    rows_read: int
    skipped: dict[str, int]
    first_skipped: str


def read_check_ins(paths: Sequence[str], format: str, columns: dict[str, str], skip_bad_rows: bool) -> CheckIns:
    """Reads files one after another.

    Args:
        paths: .csv, .tsv, .txt (plain or gzip) or .parquet files.
        format: "csv", "tsv", "parquet", "snap", "triples", or "auto": each file by its ending.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names.
        skip_bad_rows: leave out and count rows that cannot be read, rather than raise.

    Raises:
        InputError: a file cannot be used, or a row cannot be read; the message names file, line and value.
    """

    def tables() -> Iterator[NamedTable]:
        for path in paths:
            layout = _layout(path, format)
            table = read_parquet_table(path, columns) if layout == "parquet" else read_text_table(path, layout, columns)
            yield path, table, columns_of(layout, columns)

    return join_tables(tables(), skip_bad_rows)


def join_tables(tables: Iterable[NamedTable], skip_bad_rows: bool) -> CheckIns:
    """Encodes tables one after another: one vocabulary, one kind of time.

    Args:
        tables: `(name, table, columns)`, one at least: the name for messages, the columns from the flags `user_column`,
            `item_column`, `time_column` to column names, empty where columns have none.
        skip_bad_rows: leave out and count rows that cannot be read, rather than raise.

    Raises:
        InputError: a row cannot be read; the message names table, place and value.
    """
    users, items = _Vocabulary(), _Vocabulary()
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    files: list[CheckedFile] = []
    paths: list[str] = []
    times: list[np.ndarray] = []
    tally = Tally(skip_bad_rows)
    for path, table, names in tables:
        file = CheckedFile(path, [table], names, first_row=tally.rows_read)
        [rows] = file
        tally.add(file.rows_read, file.skipped, file.first_skipped)
        parts.append((users.codes(rows.user_ids, rows.users), items.codes(rows.item_ids, rows.items)))
        paths.append(path)
        files.append(file)
        times.append(rows.timestamps)
    common = common_unit(paths, [file.unit for file in files], [file.too_large for file in files])
    return CheckIns(
        users=np.concatenate([part[0] for part in parts]),
        items=np.concatenate([part[1] for part in parts]),
        timestamps=np.concatenate(
            [part * factor if factor != 1 else part for part, factor in zip(times, common.factors, strict=True)]
        ),
        user_ids=list(users.ids),
        item_ids=list(items.ids),
        time_unit=common.unit,
        rows_read=tally.rows_read,
        skipped=tally.skipped,
        first_skipped=tally.first_skipped,
    )


class _Vocabulary:
    """Ids of all files, numbered in order of appearance."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def codes(self, values: list[str], codes: np.ndarray) -> np.ndarray:
        numbers = np.array([self.ids.setdefault(value, len(self.ids)) for value in values], np.int32)
        return numbers[codes] if len(numbers) else np.zeros(0, np.int32)
