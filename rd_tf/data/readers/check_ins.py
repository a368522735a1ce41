"""Check-in files, whatever their layout, as arrays."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from rd_tf.data.readers.checked_file import CheckedFile
from rd_tf.data.readers.file_pieces import columns_of
from rd_tf.data.readers.formats import detect_format
from rd_tf.data.readers.parquet_table import read_parquet_table
from rd_tf.data.readers.raw_table import RawTable
from rd_tf.data.readers.text_table import read_text_table
from rd_tf.data.readers.times import common_unit
from rd_tf.errors import InputError

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
            layout = detect_format(path) if format == "auto" else format
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
    rows_read, skipped, first_skipped = 0, dict[str, int](), ""
    for path, table, names in tables:
        file = CheckedFile(path, [table], names, first_row=rows_read)
        [rows] = file
        if file.first_skipped and not skip_bad_rows:
            raise InputError(bad_row(file.first_skipped))
        rows_read += file.rows_read
        first_skipped = first_skipped or file.first_skipped
        for reason, count in file.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
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
        rows_read=rows_read,
        skipped=skipped,
        first_skipped=first_skipped,
    )


def bad_row(first_skipped: str) -> str:
    """What to say of a row that cannot be read, where rows may not be skipped."""
    return f"{first_skipped}; mend it or pass --skip_bad_rows"


class _Vocabulary:
    """Ids of all files, numbered in order of appearance."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def codes(self, values: list[str], codes: np.ndarray) -> np.ndarray:
        numbers = np.array([self.ids.setdefault(value, len(self.ids)) for value in values], np.int32)
        return numbers[codes] if len(numbers) else np.zeros(0, np.int32)
