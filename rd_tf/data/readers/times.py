"""Times as integers that keep their order."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

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
