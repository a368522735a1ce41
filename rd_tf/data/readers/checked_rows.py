"""Raw columns checked row by row: ids become numbers, times integers; and which rows cannot be used."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rd_tf.data.readers.files import LineCount, RawTable, shorten
from rd_tf.data.readers.text import MISFIT, NO_JSON, UNCLOSED
from rd_tf.data.readers.times import (
    DECIMAL,
    EXACT,
    FRACTIONAL,
    INTEGER,
    NO_RANGES,
    ORDER,
    TimeParser,
    TimeRanges,
    Times,
    first_too_large,
    joined_ranges,
    time_ranges,
    time_trouble,
)
from rd_tf.storage import InputError

# Reasons why a row's id is bad, indexed by `EncodedIds.faults`.
FAULTS = ("", "empty", "not UTF-8", "more than one line", "not a whole number", "too large for a float to be exact")


@dataclasses.dataclass(frozen=True)
class EncodedIds:
    """A column of ids.

    Attributes:
        codes: `[rows] int32` into `values`; -1 is a null.
        values: the distinct ids. An id that is not UTF-8 stands here altered; its rows are bad anyway.
        faults: `[rows] int8`, what the row's id is, an index into `FAULTS`; 0 is nothing.
    """

    codes: np.ndarray
    values: list[str]
    faults: np.ndarray


def encode_ids(column: pa.ChunkedArray, place: str) -> EncodedIds:
    """Encodes a column of raw ids: text, bytes, integers, or floats that are whole numbers (a column with gaps).

    Args:
        column: `[rows]` of raw ids.
        place: file and column, for messages.

    Raises:
        InputError: a column of another type.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_binary())
    elif not (_is_bytes(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise InputError(f"{place} is of type {kind}, which holds no ids; store ids as text or integers")
    limit = EXACT.get(kind, 0.0)
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())  # Arrow encodes no half floats.
    # A cast to the value type would undo the dictionaries that the CSV reader has built already.
    column = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    chunks = column.chunks
    codes = [
        chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False) for chunk in chunks
    ]
    distinct = chunks[0].dictionary.to_pylist() if chunks else []
    values, faults = [], np.zeros(len(distinct) + 1, np.int8)
    for code, value in enumerate(distinct):
        text, faults[code] = _checked(value, limit)
        values.append(text)
    faults[-1] = FAULTS.index("empty")  # Reached by the code -1.
    all_codes = np.concatenate(codes) if codes else np.zeros(0, np.int32)
    return EncodedIds(all_codes, values, faults[all_codes])


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _checked(value: bytes | int | float | None, limit: float) -> tuple[str, int]:
    if isinstance(value, float):
        if value != value:
            return "", FAULTS.index("empty")
        if not value.is_integer():
            return str(value), FAULTS.index("not a whole number")
        return (str(int(value)), 0) if abs(value) < limit else (str(value), len(FAULTS) - 1)
    if not isinstance(value, bytes):
        return ("", FAULTS.index("empty")) if value is None else (str(value), 0)
    if not value:
        return "", FAULTS.index("empty")
    # Ids are stored one a line, and TensorFlow's text-file tables strip carriage returns.
    if b"\n" in value or b"\r" in value:
        return value.decode(errors="replace"), FAULTS.index("more than one line")
    try:
        return value.decode(), 0
    except UnicodeDecodeError:
        return value.decode(errors="replace"), FAULTS.index("not UTF-8")


BAD_VALUE = "unreadable rating"
BAD_TIME = "unreadable time"
_REASONS = [MISFIT, *(f"{name} id {fault}" for name in ("user", "item") for fault in FAULTS[1:]), BAD_TIME]
_REASONS += [BAD_VALUE, UNCLOSED, NO_JSON]


@dataclasses.dataclass(frozen=True)
class CheckedRows:
    """Rows that can be used.

    Attributes:
        users: `[rows] int32` into `user_ids`.
        items: `[rows] int32` into `item_ids`.
        timestamps: `[rows] int64`.
        user_ids: raw ids; may hold ids without rows.
        item_ids: raw ids; may hold ids without rows.
    """

    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    user_ids: list[str]
    item_ids: list[str]


class CheckedFile:
    """Checks and encodes a file piece by piece; what the attributes say is complete after the last piece.

    Args:
        path: for messages.
        tables: the file's pieces, each with the misfits since the one before.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names, empty where columns have
            none.
        first_row: time of the first row where the order of the rows is the time.
        fractional: whether some time in the file is known to be fractional.
        time_format: strptime's format of every time; empty: find it.
        min_value: the lowest rating of a row that is kept, of the column of the flag `value_column`; None: all are.

    Attributes:
        rows_read: rows that can be used and others.
        below_min_rating: of those that can be used, rows that are left out for their rating.
        rows: the others of them.
        unit: of their timestamps, a word of `rd_tf.data.readers.checked_rows`; None if there are no rows.
        too_large: the first timestamp that `times.common_unit` could not scale, if there is one.
        skipped: from a reason to the number of rows that cannot be used.
        first_skipped: where the first of them stands and what it holds; empty if there is none.
        ranges: where the times lie.
        lines: what the lines of a text file are; None of other files.
    """

    def __init__(
        self,
        path: str,
        tables: Iterable[RawTable],
        columns: dict[str, str],
        first_row: int = 0,
        fractional: bool = False,
        time_format: str = "",
        min_value: float | None = None,
    ) -> None:
        places = [f"{path}: the {flag.split('_')[0]} column {name}".strip() for flag, name in columns.items()]
        self._path, self._tables, self._user_place, self._item_place = path, tables, places[0], places[1]
        self._times = TimeParser(places[2], fractional, time_format)
        self._time_format, self._min_value = time_format, min_value
        self._first_row = first_row
        self._fitting = self._misfits = 0
        # The first bad row's number among the fitting ones, and what is wrong with it.
        self._first_bad: tuple[int, str] | None = None
        self._units: set[str | None] = set()
        self.rows = self.below_min_rating = 0
        self.ranges: TimeRanges = NO_RANGES
        self.lines: LineCount | None = None
        self.too_large: int | None = None
        self.skipped: dict[str, int] = {}
        self.first_skipped = ""

    @property
    def rows_read(self) -> int:
        return self._fitting + self._misfits

    @property
    def unit(self) -> str | None:
        known = self._units - {None}
        unit = FRACTIONAL if FRACTIONAL in known else next(iter(known), None)
        return unit if self.rows else None

    def __iter__(self) -> Iterator[CheckedRows]:
        """Yields the rows that can be used.

        Raises:
            InputError: a file or column that cannot be used.
            NowFractional: see `TimeParser`.
        """
        counts = dict.fromkeys(_REASONS, 0)
        table = None
        for table in self._tables:
            self.lines = table.lines
            yield self._check(table, counts)
        self.skipped = {reason: count for reason, count in counts.items() if count}
        if self.skipped and table is not None:
            # Looking for the line is slow, so it is done once.
            row, trouble = self._first_bad or (None, "")
            place, misfit = table.locate(row)
            self.first_skipped = f"{self._path}, {place}: {misfit or trouble}"

    def _check(self, table: RawTable, counts: dict[str, int]) -> CheckedRows:
        users, items = encode_ids(table.users, self._user_place), encode_ids(table.items, self._item_place)
        times = self._order(len(table.users)) if table.times is None else self._times.parse(table.times)
        self._units.add(times.unit)
        values = _values(table) if self._min_value is not None else None
        good = (users.faults == 0) & (items.faults == 0) & times.readable
        for reason, count in table.misfits.items():
            counts[reason] += count
        counts[BAD_VALUE] += int(np.count_nonzero(good & np.isnan(values))) if values is not None else 0
        if not good.all():
            for reason, count in _counts((users.faults, items.faults), times.readable):
                counts[reason] += count
        good &= True if values is None else ~np.isnan(values)
        if not good.all() and self._first_bad is None:
            row = int(np.argmin(good))
            self._first_bad = self._fitting + row, self._trouble(table, row, (users.faults, items.faults), times)
        self._fitting += len(table.users)
        self._misfits += sum(table.misfits.values())
        if values is not None:
            self.below_min_rating += int(np.count_nonzero(values[good] < self._min_value))
            good &= ~(values < self._min_value)
        self.rows += int(np.count_nonzero(good))
        timestamps = times.values[good]
        if self.too_large is None and times.unit == INTEGER:
            self.too_large = first_too_large(timestamps)
        self.ranges = joined_ranges(self.ranges, time_ranges(timestamps, times.unit))
        return CheckedRows(users.codes[good], items.codes[good], timestamps, users.values, items.values)

    def _trouble(self, table: RawTable, row: int, faults: tuple[np.ndarray, np.ndarray], times: Times) -> str:
        for name, column, fault in zip(("user", "item"), (table.users, table.items), faults, strict=True):
            if fault[row]:
                advice = "; --encoding names another, such as latin-1" if FAULTS[fault[row]] == "not UTF-8" else ""
                return f"the {name} id {shorten(column[row].as_py())} is {FAULTS[fault[row]]}{advice}"
        if times.readable[row] or table.times is None:
            return f"the rating {shorten(table.others['value_column'][row].as_py())} is no number"
        value = table.times[row].as_py()
        return f"the time {shorten(value)} {time_trouble(value, self._time_format)}"

    def _order(self, rows: int) -> Times:
        first = self._first_row + self._fitting
        numbers = np.arange(first, first + rows, dtype=np.int64)
        return Times(ORDER, numbers, np.ones(rows, bool))


def _values(table: RawTable) -> np.ndarray:
    """`[rows] float64`: the ratings, NaN where there is none."""
    column = table.others["value_column"]
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return column.cast(pa.float64(), safe=False).to_numpy()
    if not (_is_bytes(column.type) or pa.types.is_string(column.type)):
        return np.full(len(column), np.nan)
    is_number = pc.match_substring_regex(column.fill_null(b""), DECIMAL).to_numpy()
    values = np.full(len(column), np.nan)
    values[is_number] = np.array(column.filter(pa.array(is_number)).to_pylist(), object).astype(np.float64)
    return values


def _counts(faults: tuple[np.ndarray, np.ndarray], readable: np.ndarray) -> Iterator[tuple[str, int]]:
    counted = np.zeros(len(readable), bool)
    for name, fault in zip(("user", "item"), faults, strict=True):
        new = np.bincount(fault[~counted], minlength=len(FAULTS))
        yield from ((f"{name} id {FAULTS[number]}", int(new[number])) for number in range(1, len(FAULTS)))
        counted |= fault != 0
    yield BAD_TIME, int(np.count_nonzero(~readable & ~counted))
