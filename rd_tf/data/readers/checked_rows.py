"""Raw columns checked row by row: ids, and times as integers that keep their order; and which rows cannot be used."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rd_tf.data.readers.files import RawTable, shorten
from rd_tf.storage import InputError

INTEGER = "integers as given"
FRACTIONAL = "numbers as given, times 1,000,000"
CLOCK = "microseconds since 1970-01-01 UTC"
ORDER = "order of the lines"
_MICRO = 1_000_000

_PLAIN_INTEGER = r"^-?\d{1,18}$"
_INTEGER = r"^\s*[+-]?\d+\s*$"
DECIMAL = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_ISO = r"^\s*\d{4}-\d\d-\d\d([T ]\d\d(:?\d\d(:?\d\d([.,]\d+)?)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?)?\s*$"


@dataclasses.dataclass(frozen=True)
class Times:
    """A column of times.

    Attributes:
        unit: `INTEGER`, `FRACTIONAL`, `CLOCK` or `ORDER`; None where no row is readable.
        values: `[rows] int64`; 0 where unreadable.
        readable: `[rows] bool`.
    """

    unit: str | None
    values: np.ndarray
    readable: np.ndarray


@dataclasses.dataclass(frozen=True)
class Common:
    """What makes the times of several files comparable.

    Attributes:
        unit: of all.
        factors: what the times of every file are multiplied by.
    """

    unit: str
    factors: list[int]


class NowFractional(Exception):
    """A fractional number follows on whole ones that were handed out unscaled."""


class TimeParser:
    """Converts a column: numbers, timestamps, dates, or text that holds numbers or ISO 8601 dates and times.

    In text the first readable value says whether the column holds numbers or ISO 8601; a value of the other kind is
    unreadable. An ISO time without an offset is UTC. Numbers stay as they are if all are whole, else all are multiplied
    by 1,000,000 and rounded (seconds become microseconds). Not-a-number, infinite and too large values are unreadable.

    The column may come in pieces: what earlier pieces held counts.

    Args:
        place: file and column, for messages.
        fractional: whether some number of the column is known to be fractional.
    """

    def __init__(self, place: str, fractional: bool = False) -> None:
        self._place, self._fractional = place, fractional
        # Whether times that are text are ISO 8601 or numbers; None until the first one is seen.
        self._is_iso: bool | None = None
        self._whole_seen = False

    def parse(self, column: pa.ChunkedArray) -> Times:
        """Converts the next `[rows]`.

        Raises:
            InputError: a column of another type.
            NowFractional: it is not known to be fractional, but is; begin again with `fractional`.
        """
        times = self._parse(column)
        if times.unit == INTEGER:
            self._whole_seen = True
        if times.unit == FRACTIONAL and not self._fractional:
            if self._whole_seen:
                raise NowFractional
            self._fractional = True
        return times

    def _parse(self, column: pa.ChunkedArray) -> Times:
        kind = column.type
        if pa.types.is_temporal(kind) and not (pa.types.is_time(kind) or pa.types.is_duration(kind)):
            # A finer unit is cut off, a coarser one is checked for overflow.
            try:
                column = column.cast(pa.timestamp("us"), safe=getattr(kind, "unit", "s") != "ns").cast(pa.int64())
            except pa.ArrowException as error:
                raise InputError(
                    f"{self._place} cannot be brought to microseconds ({error}); store it otherwise"
                ) from None
            return Times(CLOCK, *_filled(column))
        if pa.types.is_uint64(kind):
            too_large = pc.greater(column, pa.scalar(2**63 - 1, pa.uint64()))
            column = pc.if_else(too_large, pa.scalar(None, pa.uint64()), column)
            kind = column.type
        if pa.types.is_integer(kind):
            return Times(INTEGER, *_filled(column.cast(pa.int64())))
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            floats = column.cast(pa.float64()).to_numpy()
            integers, is_integer = np.zeros(len(floats), np.int64), np.zeros(len(floats), bool)
            return _from_numbers(integers, is_integer, floats, self._fractional)
        if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = column.cast(pa.large_binary())
        elif not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise InputError(
                f"{self._place} is of type {kind}, which holds no times; store numbers, timestamps or ISO 8601 text"
            )
        return self._from_text(column.fill_null(b"") if column.null_count else column)

    def _from_text(self, column: pa.ChunkedArray) -> Times:
        plain = pc.all(pc.match_substring_regex(column, _PLAIN_INTEGER), min_count=0).as_py()
        if plain and not self._is_iso and not self._fractional:
            self._is_iso = False if len(column) else self._is_iso
            return Times(INTEGER, *_filled(column.cast(pa.large_string()).cast(pa.int64())))
        integer, decimal, iso = (_matches(column, pattern) for pattern in (_INTEGER, DECIMAL, _ISO))
        known = decimal | iso
        if not known.any():
            return Times(None, np.zeros(len(column), np.int64), known)
        if self._is_iso is None:
            self._is_iso = bool(iso[np.argmax(known)])
        if self._is_iso:
            return _from_iso(column, iso)
        integers, floats = np.zeros(len(column), np.int64), np.full(len(column), np.nan)
        integers[integer], too_large = _to_integers(_trimmed(column, integer))
        integer[np.flatnonzero(integer)[too_large]] = False
        decimal &= ~_matches(column, _INTEGER)
        floats[decimal] = _trimmed(column, decimal).cast(pa.float64()).to_numpy()
        return _from_numbers(integers, integer, floats, self._fractional)


def first_too_large(values: np.ndarray) -> int | None:
    """The first of `[rows] int64` that does not fit the unit `FRACTIONAL`."""
    limit = np.iinfo(np.int64).max // _MICRO
    too_large = (values > limit) | (values < -limit)
    return int(values[np.argmax(too_large)]) if too_large.any() else None


def common_unit(places: Sequence[str], units: Sequence[str | None], too_large: Sequence[int | None]) -> Common:
    """Finds the unit that the times of several files can be compared in.

    Args:
        places: the files, for messages.
        units: of every file that has rows; None of the others.
        too_large: of every file in whole numbers `first_too_large`.

    Raises:
        InputError: there is none, or a value is too large for it.
    """
    found = {unit: place for unit, place in zip(units, places, strict=True) if unit}
    scaled = found.keys() == {INTEGER, FRACTIONAL}
    if scaled:
        for place, unit, value in zip(places, units, too_large, strict=True):
            if unit == INTEGER and value is not None:
                raise InputError(
                    f"{place}: the time {value} is too large beside fractional times (all are multiplied by"
                    f" {_MICRO:,}); round the fractional ones"
                )
        found.pop(INTEGER)
    if len(found) > 1:
        described = " and ".join(f"{place} ({unit})" for unit, place in found.items())
        raise InputError(f"--input: the times of {described} cannot be compared; bring them to one kind")
    factors = [_MICRO if scaled and unit == INTEGER else 1 for unit in units]
    return Common(next(iter(found), INTEGER), factors)


def _filled(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    return column.fill_null(0).to_numpy(), column.is_valid().to_numpy()


def _from_numbers(integers: np.ndarray, is_integer: np.ndarray, floats: np.ndarray, fractional: bool) -> Times:
    """Joins whole numbers and, where `is_integer` is false, floats (NaN: unreadable)."""
    finite = ~is_integer & np.isfinite(floats)
    if not fractional and np.all(floats[finite] == np.floor(floats[finite])):
        fits = finite & (np.abs(np.where(finite, floats, 0)) < 2.0**63)
        values = np.where(is_integer, integers, np.where(fits, floats, 0).astype(np.int64))
        readable = is_integer | fits
        return Times(INTEGER if readable.any() else None, values, readable)
    limit = np.iinfo(np.int64).max // _MICRO
    fits = finite & (np.abs(np.where(finite, floats, 0)) < limit)
    integers_fit = is_integer & (integers <= limit) & (integers >= -limit)
    scaled = np.rint(np.where(fits, floats, 0) * _MICRO).astype(np.int64)
    return Times(FRACTIONAL, np.where(integers_fit, integers, 0) * _MICRO + scaled, integers_fit | fits)


def _matches(column: pa.ChunkedArray, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(column, pattern).to_numpy()


def _trimmed(column: pa.ChunkedArray, mask: np.ndarray) -> pa.ChunkedArray:
    text = column.filter(pa.array(mask)).cast(pa.large_string())
    return pc.ascii_ltrim(pc.ascii_trim_whitespace(text), characters="+")


def _to_integers(text: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    try:
        return text.cast(pa.int64()).to_numpy(), np.zeros(len(text), bool)
    except pa.ArrowInvalid:
        values = [int(value) if len(value) < 30 else 2**64 for value in text.to_pylist()]
        too_large = np.array([not -(2**63) <= value < 2**63 for value in values])
        return np.array([0 if large else v for v, large in zip(values, too_large, strict=True)], np.int64), too_large


def _from_iso(column: pa.ChunkedArray, iso: np.ndarray) -> Times:
    text = pc.replace_substring_regex(_trimmed(column, iso), r"([.,]\d{6})\d+", r"\1")
    # Fractions of a nanosecond would narrow pandas' range of years to 1677-2262, so they were cut to microseconds.
    parsed = pd.to_datetime(text.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    readable = iso.copy()
    readable[iso] = parsed.notna().to_numpy()
    values = np.zeros(len(column), np.int64)
    values[readable] = parsed[parsed.notna()].dt.as_unit("us").astype("int64").to_numpy()
    return Times(CLOCK, values, readable)


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
        unit: of their timestamps, a word of `rd_tf.data.readers.checked_rows`; None if there are no rows.
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
        if self.too_large is None and times.unit == INTEGER:
            self.too_large = first_too_large(timestamps)
        return CheckedRows(users.codes[good], items.codes[good], timestamps, users.values, items.values)

    def _order(self, rows: int) -> Times:
        first = self._first_row + self._fitting
        numbers = np.arange(first, first + rows, dtype=np.int64)
        return Times(ORDER, numbers, np.ones(rows, bool))


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
