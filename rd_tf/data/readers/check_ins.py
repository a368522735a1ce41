"""Check-in files, whatever their layout, as arrays."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from rd_tf.data.readers import times as time_units
from rd_tf.data.readers.formats import detect_format
from rd_tf.data.readers.ids import FAULTS, encode_ids
from rd_tf.data.readers.parquet_table import read_parquet_table
from rd_tf.data.readers.raw_table import RawTable, shorten
from rd_tf.data.readers.text_table import read_text_table
from rd_tf.data.readers.times import Times, parse_times, scale_to_fractional
from rd_tf.errors import InputError

MISFIT = "wrong number of fields"
BAD_TIME = "unreadable time"
_ADVICE = "mend it or pass --skip_bad_rows"
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
            yield path, table, columns if layout in ("csv", "tsv", "parquet") else dict.fromkeys(columns, "")

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
    paths: list[str] = []
    times: list[Times] = []
    rows_read, skipped, first_skipped = 0, dict[str, int](), ""
    for path, table, names in tables:
        paths.append(path)
        places = [f"{path}: the {flag.split('_')[0]} column {name}".strip() for flag, name in names.items()]
        user_codes, item_codes = encode_ids(table.users, places[0]), encode_ids(table.items, places[1])
        row_times = _order(len(table.users), rows_read) if table.times is None else parse_times(table.times, places[2])
        rows_read += len(table.users) + table.misfits
        good = (user_codes.faults == 0) & (item_codes.faults == 0) & row_times.readable
        if table.misfits or not good.all():
            row = None if good.all() else int(np.argmin(good))
            faults = (user_codes.faults, item_codes.faults)
            # Looking for the line is slow, and one example is enough.
            first_skipped = first_skipped or f"{path}, {_first_trouble(table, row, faults)}"
            if not skip_bad_rows:
                raise InputError(f"{first_skipped}; {_ADVICE}")
            for reason, count in _counts(table.misfits, faults, row_times.readable):
                skipped[reason] = skipped.get(reason, 0) + count
        parts.append(
            (
                users.codes(user_codes.values, user_codes.codes[good]),
                items.codes(item_codes.values, item_codes.codes[good]),
            )
        )
        times.append(Times(row_times.unit, row_times.values[good], row_times.readable[good]))
    unit, timestamps = _join_times(paths, times)
    return CheckIns(
        users=np.concatenate([part[0] for part in parts]),
        items=np.concatenate([part[1] for part in parts]),
        timestamps=timestamps,
        user_ids=list(users.ids),
        item_ids=list(items.ids),
        time_unit=unit,
        rows_read=rows_read,
        skipped=skipped,
        first_skipped=first_skipped,
    )


class _Vocabulary:
    """Ids of all files, numbered in order of appearance."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def codes(self, values: list[str], codes: np.ndarray) -> np.ndarray:
        numbers = np.array([self.ids.setdefault(value, len(self.ids)) for value in values], np.int32)
        return numbers[codes] if len(numbers) else np.zeros(0, np.int32)


def _order(rows: int, first: int) -> Times:
    return Times(time_units.ORDER, np.arange(first, first + rows, dtype=np.int64), np.ones(rows, bool))


def _first_trouble(table: RawTable, row: int | None, faults: tuple[np.ndarray, np.ndarray]) -> str:
    place, misfit = table.locate(row)
    if misfit is not None or row is None:
        return f"{place}: {misfit}"
    for name, column, fault in zip(("user", "item"), (table.users, table.items), faults, strict=True):
        if fault[row]:
            return f"{place}: the {name} id {shorten(column[row].as_py())} is {FAULTS[fault[row]]}"
    assert table.times is not None
    value = table.times[row].as_py()
    return f"{place}: the time {shorten(value)} is no number (or too large) and no ISO 8601 date or time"


def _counts(misfits: int, faults: tuple[np.ndarray, np.ndarray], readable: np.ndarray) -> list[tuple[str, int]]:
    counts, counted = [(MISFIT, misfits)], np.zeros(len(readable), bool)
    for name, fault in zip(("user", "item"), faults, strict=True):
        new = np.bincount(fault[~counted], minlength=len(FAULTS))
        counts += [(f"{name} id {reason}", int(new[number])) for number, reason in enumerate(FAULTS) if number]
        counted |= fault != 0
    counts.append((BAD_TIME, int(np.count_nonzero(~readable & ~counted))))
    return [(reason, count) for reason, count in counts if count]


def _join_times(paths: Sequence[str], times: list[Times]) -> tuple[str, np.ndarray]:
    units = {part.unit: path for part, path in zip(times, paths, strict=True) if part.unit and len(part.values)}
    if units.keys() == {time_units.INTEGER, time_units.FRACTIONAL}:
        times = [
            scale_to_fractional(part, path) if part.unit == time_units.INTEGER else part
            for part, path in zip(times, paths, strict=True)
        ]
        units.pop(time_units.INTEGER)
    if len(units) > 1:
        described = " and ".join(f"{path} ({unit})" for unit, path in units.items())
        raise InputError(f"--input: the times of {described} cannot be compared; bring them to one kind")
    return next(iter(units), None) or time_units.INTEGER, np.concatenate([part.values for part in times])
