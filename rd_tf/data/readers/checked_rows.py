"""Raw columns checked row by row: ids and times that can be used, and which rows cannot."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rd_tf.data.readers import times as time_units
from rd_tf.data.readers.files import RawTable, shorten
from rd_tf.data.readers.times import TimeParser, first_too_large
from rd_tf.storage import InputError

# Reasons why a row's id is bad, indexed by `EncodedIds.faults`.
FAULTS = ("", "empty", "not UTF-8", "more than one line", "not a whole number", "too large for a float to be exact")
# From here on, several whole numbers have become one float.
_EXACT = {pa.float16(): 2.0**11, pa.float32(): 2.0**24, pa.float64(): 2.0**53}


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
    limit = _EXACT.get(kind, 0.0)
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


MISFIT = "wrong number of fields"
BAD_TIME = "unreadable time"
_REASONS = [MISFIT, *(f"{name} id {fault}" for name in ("user", "item") for fault in FAULTS[1:]), BAD_TIME]


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

    Attributes:
        rows_read: rows that can be used and others.
        rows: rows that can be used.
        unit: of their timestamps, a word of `rd_tf.data.readers.times`; None if there are no rows.
        too_large: the first timestamp that `times.common_unit` could not scale, if there is one.
        skipped: from a reason to the number of rows that cannot be used.
        first_skipped: where the first of them stands and what it holds; empty if there is none.
    """

    def __init__(
        self,
        path: str,
        tables: Iterable[RawTable],
        columns: dict[str, str],
        first_row: int = 0,
        fractional: bool = False,
    ) -> None:
        places = [f"{path}: the {flag.split('_')[0]} column {name}".strip() for flag, name in columns.items()]
        self._path, self._tables, self._user_place, self._item_place = path, tables, places[0], places[1]
        self._times = TimeParser(places[2], fractional)
        self._first_row = first_row
        self._fitting = self._misfits = 0
        # The first bad row's number among the fitting ones, and what is wrong with it.
        self._first_bad: tuple[int, str] | None = None
        self._units: set[str | None] = set()
        self.rows = 0
        self.too_large: int | None = None
        self.skipped: dict[str, int] = {}
        self.first_skipped = ""

    @property
    def rows_read(self) -> int:
        return self._fitting + self._misfits

    @property
    def unit(self) -> str | None:
        known = self._units - {None}
        unit = time_units.FRACTIONAL if time_units.FRACTIONAL in known else next(iter(known), None)
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
        good = (users.faults == 0) & (items.faults == 0) & times.readable
        counts[MISFIT] += table.misfits
        if not good.all():
            row = int(np.argmin(good))
            faults = (users.faults, items.faults)
            if self._first_bad is None:
                self._first_bad = self._fitting + row, _trouble(table, row, faults)
            for reason, count in _counts(faults, times.readable):
                counts[reason] += count
        self._fitting += len(table.users)
        self._misfits += table.misfits
        self.rows += int(np.count_nonzero(good))
        timestamps = times.values[good]
        if self.too_large is None and times.unit == time_units.INTEGER:
            self.too_large = first_too_large(timestamps)
        return CheckedRows(users.codes[good], items.codes[good], timestamps, users.values, items.values)

    def _order(self, rows: int) -> time_units.Times:
        first = self._first_row + self._fitting
        numbers = np.arange(first, first + rows, dtype=np.int64)
        return time_units.Times(time_units.ORDER, numbers, np.ones(rows, bool))


def _trouble(table: RawTable, row: int, faults: tuple[np.ndarray, np.ndarray]) -> str:
    for name, column, fault in zip(("user", "item"), (table.users, table.items), faults, strict=True):
        if fault[row]:
            return f"the {name} id {shorten(column[row].as_py())} is {FAULTS[fault[row]]}"
    assert table.times is not None
    value = table.times[row].as_py()
    return f"the time {shorten(value)} is no number (or too large) and no ISO 8601 date or time"


def _counts(faults: tuple[np.ndarray, np.ndarray], readable: np.ndarray) -> Iterator[tuple[str, int]]:
    counted = np.zeros(len(readable), bool)
    for name, fault in zip(("user", "item"), faults, strict=True):
        new = np.bincount(fault[~counted], minlength=len(FAULTS))
        yield from ((f"{name} id {FAULTS[number]}", int(new[number])) for number in range(1, len(FAULTS)))
        counted |= fault != 0
    yield BAD_TIME, int(np.count_nonzero(~readable & ~counted))
