"""Raw columns checked row by row: ids become numbers, times integers; and which rows cannot be used."""

import dataclasses
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rd_tf.data.readers.files import LineCount, RawTable, shorten
from rd_tf.data.readers.text import MISFIT, NO_JSON, UNCLOSED
from rd_tf.storage import InputError

INTEGER = "integers as given"
FRACTIONAL = "numbers as given, times 1,000,000"
CLOCK = "microseconds since 1970-01-01 UTC"
ORDER = "order of the lines"
_MICRO = 1_000_000

_PLAIN_INTEGER = r"^-?\d{1,18}$"
# A digit other than 0 beyond the sixth decimal.
_FINE = r"[.,]\d{6}0*[1-9]"
_INTEGER = r"^\s*[+-]?\d+\s*$"
DECIMAL = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
# Several whole numbers are one float from here on.
EXACT = {pa.float16(): 2.0**11, pa.float32(): 2.0**24, pa.float64(): 2.0**53}
_ISO = r"^\s*\d{4}-\d\d-\d\d([T ]\d\d(:?\d\d(:?\d\d([.,]\d+)?)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?)?\s*$"

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?"
_MONTH = (
    r"(?P<mo>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY, _YEAR = r"(?P<d>\d\d?)(?:st|nd|rd|th)?", r"(?P<y>\d{4})"
_CLOCK = r"(?P<h>\d\d?):(?P<mi>\d\d)(?::(?P<s>\d\d?)(?:[.,](?P<f>\d+))?)?(?: ?(?P<ap>[ap])(?:m\b|\.m\.))?"
_ZONE = r"(?: ?(?P<z>[a-z][a-z0-9_]*(?:/[a-z0-9_+-]+)*|(?:utc|gmt)?[+-]\d\d?(?::?\d\d)?)(?: \([\w ]+\))?)?"
_BRACKETS = r"(?:\[(?P<zb>[a-z0-9_+/-]+)\])?"
# Dates whose parts cannot be taken for one another: the year comes first, or the month has a name.
_FORMS = [
    rf"(?i)^\s*{form}\s*$"
    for form in (
        rf"{_YEAR}[-/.](?P<mo>\d\d?)[-/.](?P<d>\d\d?)(?:(?:T|,? +|_){_CLOCK})?{_ZONE}{_BRACKETS}",
        rf"{_YEAR}(?P<mo>\d\d)(?P<d>\d\d)T(?P<h>\d\d)(?::?(?P<mi>\d\d)(?::?(?P<s>\d\d)(?:[.,](?P<f>\d+))?)?)?{_ZONE}",
        rf"{_WEEKDAY}{_DAY}[-/ ]+{_MONTH}[-/, ]+{_YEAR}(?:(?:[T:]|,? +){_CLOCK})?{_ZONE}",
        rf"{_WEEKDAY}{_MONTH} +{_DAY},? +{_YEAR}(?:(?:T|,? +(?:at +)?){_CLOCK})?{_ZONE}",
        rf"{_WEEKDAY}{_MONTH} +{_DAY} +{_CLOCK}{_ZONE} +{_YEAR}",
    )
]
# Hours from UTC, as RFC 2822 has them; other short names mean several zones.
_ZONES = {"": 0, "z": 0, "ut": 0, "utc": 0, "gmt": 0}
_ZONES |= {"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}
_AMBIGUOUS = re.compile(r"\s*(\d\d?)([/.-])(\d\d?)\2(\d{4}|\d\d)(.*)", re.DOTALL)
_AFTER_DATE = re.compile(r"([T ,]*)(\d\d?):(\d\d)(:\d\d)?(\.\d+)?( ?[AaPp][Mm])?( ?[+-]\d\d:?\d\d| ?Z)?\s*")


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

    In text the first readable value says whether the column holds numbers or dates; a value of the other kind is
    unreadable. Dates are ISO 8601 and others whose year comes first or whose month has a name, such as RFC 2822; a time
    without a zone is UTC. Numbers stay as they are if all are whole, else all are multiplied
    by 1,000,000 and rounded (seconds become microseconds). Not-a-number, infinite and too large values are unreadable.

    The column may come in pieces: what earlier pieces held counts.

    Args:
        place: file and column, for messages.
        fractional: whether some number of the column is known to be fractional.
        format: strptime's format of every time; empty: find it.
    """

    def __init__(self, place: str, fractional: bool = False, format: str = "") -> None:
        self._place, self._fractional, self._format = place, fractional, format
        # Whether times that are text are dates or numbers; None until the first one is seen.
        self._is_iso: bool | None = None
        self._whole_seen = False

    def parse(self, column: pa.ChunkedArray) -> Times:
        """Converts the next `[rows]`.

        Raises:
            InputError: a column of another type, or times less than a microsecond apart would become one.
            NowFractional: it is not known to be fractional, but is; begin again with `fractional`.
        """
        times = self._parse(column)
        if times.unit in (CLOCK, FRACTIONAL):
            self._refuse_lost_order(column, times)
        if times.unit == INTEGER:
            self._whole_seen = True
        if times.unit == FRACTIONAL and not self._fractional:
            if self._whole_seen:
                raise NowFractional
            self._fractional = True
        return times

    def _refuse_lost_order(self, column: pa.ChunkedArray, times: Times) -> None:
        kind = column.type
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            fine = pc.not_equal(column.cast(pa.int64()), pa.array(times.values * 1000)).fill_null(False).to_numpy()
        elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            fine = times.readable
        elif pa.types.is_temporal(kind) or pa.types.is_integer(kind):
            return
        else:
            fine = _matches(column.cast(pa.large_binary()).fill_null(b""), _FINE)
        fine = fine & times.readable
        if not fine.any():
            return
        near = times.readable if fine.all() else times.readable & np.isin(times.values, times.values[fine])
        near = np.flatnonzero(near)
        near = near[np.argsort(times.values[near], kind="stable")]
        same = np.flatnonzero(times.values[near][1:] == times.values[near][:-1])
        texts = column.take(pa.array(near)).to_pylist() if len(same) else []
        for place in same:
            if texts[place] != texts[place + 1]:
                first, second = (each.decode() if isinstance(each, bytes) else str(each) for each in texts[place:][:2])
                raise InputError(
                    f"{self._place}: {first} and {second} are less than a microsecond apart, in which their order is "
                    "lost; round them, or store whole nanoseconds"
                )

    def _parse(self, column: pa.ChunkedArray) -> Times:
        kind = column.type
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if self._format and is_number:
            column, is_number = column.cast(pa.string()), False
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
        if is_number:
            floats = column.cast(pa.float64()).to_numpy()
            limit = EXACT.get(kind, 2.0**63)
            if np.any((np.abs(floats) >= limit) & (np.abs(floats) < 2.0**63)):
                raise InputError(
                    f"{self._place} is of type {kind}, in which some whole numbers from {limit:,.0f} on are one, and"
                    " their order is lost; store integers"
                )
            integers, is_integer = np.zeros(len(floats), np.int64), np.zeros(len(floats), bool)
            return _from_numbers(integers, is_integer, floats, self._fractional)
        if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = column.cast(pa.large_binary())
        elif not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise InputError(
                f"{self._place} is of type {kind}, which holds no times; store numbers, timestamps or ISO 8601 text"
            )
        column = column.fill_null(b"") if column.null_count else column
        return _from_format(column, self._format) if self._format else self._from_text(column)

    def _from_text(self, column: pa.ChunkedArray) -> Times:
        plain = pc.all(pc.match_substring_regex(column, _PLAIN_INTEGER), min_count=0).as_py()
        if plain and not self._is_iso and not self._fractional:
            self._is_iso = False if len(column) else self._is_iso
            return Times(INTEGER, *_filled(column.cast(pa.large_string()).cast(pa.int64())))
        integer, decimal, iso = (_matches(column, pattern) for pattern in (_INTEGER, DECIMAL, _ISO))
        if self._is_iso is not False:
            dates = _from_dates(column, iso, ~decimal)
            known = decimal | iso | dates.readable
            if self._is_iso is None and known.any():
                self._is_iso = not decimal[np.argmax(known)]
            if self._is_iso:
                return dates
        if not decimal.any():
            return Times(None, np.zeros(len(column), np.int64), decimal)
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


def _from_dates(column: pa.ChunkedArray, iso: np.ndarray, others: np.ndarray) -> Times:
    """Reads those in ISO's usual form, and any others that `others` marks."""
    values, readable = np.zeros(len(column), np.int64), iso.copy()
    if iso.any():
        text = pc.replace_substring_regex(_trimmed(column, iso), r"([.,]\d{6})\d+", r"\1")
        # Fractions of a nanosecond would narrow pandas' range of years to 1677-2262, so they were cut to microseconds.
        readable[iso], values[iso] = _microseconds(
            pd.to_datetime(text.to_pandas(), format="ISO8601", utc=True, errors="coerce")
        )
    left = np.flatnonzero(others & ~readable)
    for form in _FORMS:
        if not len(left):
            break
        parts = pc.extract_regex(pa.concat_arrays(column.take(pa.array(left)).chunks), form)
        fits = parts.is_valid().to_numpy(zero_copy_only=False)
        values[left[fits]], readable[left[fits]] = _from_parts(parts.drop_null())
        left = left[~fits]
    return Times(CLOCK if readable.any() else None, values, readable)


def _microseconds(parsed: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    known = parsed.notna().to_numpy()
    values = np.zeros(len(parsed), np.int64)
    values[known] = parsed[known].dt.as_unit("us").astype("int64").to_numpy()
    return known, values


def _from_parts(parts: pa.StructArray) -> tuple[np.ndarray, np.ndarray]:
    """`[rows] int64` microseconds and `[rows] bool`, whether there is such a time, of what a form has found."""
    names = {field.name for field in parts.type}

    def texts(name: str) -> pd.Series:
        return parts.field(name).cast(pa.string()).to_pandas() if name in names else pd.Series([""] * len(parts))

    def numbers(name: str) -> np.ndarray:
        return pd.to_numeric(texts(name).replace("", "0")).to_numpy(np.int64)

    month = texts("mo").str.slice(0, 3).str.lower()
    month = month.map({name: str(number) for number, name in enumerate(_MONTHS, 1)}).fillna(month)
    year, day, hour, minute, second = (numbers(name) for name in ("y", "d", "h", "mi", "s"))
    fraction = pd.to_numeric(texts("f").str.slice(0, 6).str.pad(6, "right", "0")).to_numpy(np.int64)
    months = (year - 1970) * 12 + pd.to_numeric(month).to_numpy(np.int64) - 1
    first, following = (
        each.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) for each in (months, months + 1)
    )
    half = texts("ap").str.lower().to_numpy()
    exists = (year > 0) & (months // 12 == year - 1970) & (day > 0) & (first + day <= following) & (minute < 60)
    exists &= (second < 60) & np.where(half == "", hour < 24, (hour > 0) & (hour < 13))
    # The end of a day.
    exists |= (hour == 24) & (minute + second + fraction == 0) & (half == "") & (first + day <= following) & (day > 0)
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "p"))
    values = ((((first + day - 1) * 24 + hour) * 60 + minute) * 60 + second) * _MICRO + fraction
    zone = texts("z").str.lower() + texts("zb").str.lower().where(texts("z") == "", "")
    for name in zone.unique():
        rows = (zone == name).to_numpy() & exists
        values[rows], exists[rows] = _to_utc(values[rows], name)
    return values, exists


def _to_utc(values: np.ndarray, zone: str) -> tuple[np.ndarray, np.ndarray]:
    offset = re.fullmatch(r"(?:utc|gmt)?([+-])(\d\d?):?(\d\d)?", zone)
    if zone in _ZONES or (offset and int(offset[2]) < 24 and int(offset[3] or 0) < 60):
        minutes = int(f"{offset[1]}1") * (int(offset[2]) * 60 + int(offset[3] or 0)) if offset else _ZONES[zone] * 60
        return values - minutes * 60 * _MICRO, np.ones(len(values), bool)
    names = {name.lower(): name for name in zoneinfo.available_timezones() if "/" in name} if "/" in zone else {}
    if zone not in names:
        return values, np.zeros(len(values), bool)
    # An hour that a clock shows twice is the first one.
    local = pd.DatetimeIndex(values.astype("datetime64[us]"))
    local = local.tz_localize(names[zone], ambiguous=np.ones(len(values), bool), nonexistent="shift_forward")
    return local.as_unit("us").asi8, np.ones(len(values), bool)


def _from_format(column: pa.ChunkedArray, format: str) -> Times:
    is_text = pc.match_substring_regex(column, r"^[\x20-\x7e]*$").to_numpy()
    text = column.filter(pa.array(is_text)).cast(pa.large_string()).to_pandas().str.strip()
    values, readable = np.zeros(len(column), np.int64), is_text.copy()
    readable[is_text], values[is_text] = _microseconds(pd.to_datetime(text, format=format, utc=True, errors="coerce"))
    return Times(CLOCK if readable.any() else None, values, readable)


def check_time_format(format: str) -> None:
    """Checks a format as strptime takes it.

    Raises:
        InputError: it is none.
    """
    try:
        if "%" not in format:
            raise ValueError("it has no % directive")
        pd.to_datetime(["-"], format=format, utc=True, errors="coerce")
    except ValueError as error:
        raise InputError(
            f"--time_format={format} is no format of strptime ({error}); give one such as '%d.%m.%Y %H:%M'"
        ) from None


def time_trouble(value: Any, format: str) -> str:
    """What is wrong with a time that cannot be read, and the flag that would read it.

    Args:
        value: as the file has it.
        format: --time_format; empty where there is none.
    """
    if format:
        return f"is not of the form --time_format={format}"
    said = "is no number (or too large) and no ISO 8601 date or time"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if found := _AMBIGUOUS.fullmatch(text):
        rest = _AFTER_DATE.fullmatch(found[5])
        year, mark = ("%Y" if len(found[4]) == 4 else "%y"), found[2]
        if rest:
            half = rest[6] is not None
            clock = f"{rest[1]}{'%I' if half else '%H'}:%M{':%S' if rest[4] else ''}{'.%f' if rest[5] else ''}"
            clock += (" %p" if rest[6].startswith(" ") else "%p") if half else ""
            clock += (" %z" if rest[7].startswith(" ") else "%z") if rest[7] else ""
        else:
            clock = found[5] and "..."
        days_first, months_first = f"%d{mark}%m{mark}{year}{clock}", f"%m{mark}%d{mark}{year}{clock}"
        formats = " or ".join(f"'--time_format={form}'" for form in (months_first, days_first))
        return f"{said}: day and month are not guessed; pass {formats}"
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text):
        return f"{said}: it has a decimal comma; write a decimal point"
    if re.search(r"\d{4}.*[A-Za-z]{2,5}\s*$", text):
        return f"{said}: where its time zone has a short name, write an offset such as +02:00"
    if len(re.findall(r"\d", text)) > 3 and re.search(r"[-/:.,]", text):
        return f"{said}; --time_format reads others, as strptime does"
    return said


# From 1990 on, and up to 2100: no time is in two of these units.
_FIRST, _END = 631_152_000.0, 4_102_444_800.0
_UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_YEAR_SECONDS = 31_556_952
# Of each unit, and of times that lie in those years in no unit: rows, least, greatest.
TimeRanges = list[tuple[int, float, float]]
NO_RANGES: TimeRanges = [(0, float("inf"), float("-inf"))] * (len(_UNITS) + 1)


def time_ranges(values: np.ndarray, unit: str | None) -> TimeRanges:
    """Counts `[rows] int64` times by the unit in which they lie in the years 1990 to 2100."""
    if unit in (None, ORDER):
        return NO_RANGES
    times = values / _MICRO if unit == FRACTIONAL else values.astype(np.float64)
    left, found = np.ones(len(times), bool), []
    for name, scale in _UNITS.items():
        inside = (times >= _FIRST * scale) & (times < _END * scale)
        inside &= unit != CLOCK or name == "microseconds"
        found.append(times[inside])
        left &= ~inside
    return [
        (len(each), float(each.min()), float(each.max())) if len(each) else NO_RANGES[0]
        for each in (*found, times[left])
    ]


def joined_ranges(one: TimeRanges, two: TimeRanges) -> TimeRanges:
    """The counts of two parts together."""
    return [(a[0] + b[0], min(a[1], b[1]), max(a[2], b[2])) for a, b in zip(one, two, strict=True)]


def range_warnings(ranges: TimeRanges, unit: str) -> list[str]:
    """What to say of times of several units, or of some outside the years 1990 to 2100: a sentence or none."""
    counted = {name: each for name, each in zip((*_UNITS, ""), ranges, strict=True) if each[0]}
    rows, inside = sum(each[0] for each in ranges), [name for name in counted if name]
    # Numbers that lie in these years in no unit may be anything.
    if not counted or (len(counted) == 1 if inside else unit != CLOCK):
        return []
    main = max(inside, key=lambda name: counted[name][0], default="microseconds")

    def years(name: str, as_unit: str) -> str:
        first, last = (1970 + int(each / _UNITS[as_unit] // _YEAR_SECONDS) for each in counted[name][1:])
        return f"the year {first}" if first == last else f"the years {first} to {last}"

    parts = [f"{counted[name][0]:,} of {rows:,} in {years(name, main)}" for name in counted]
    parts = [
        part + (f" ({years(name, name)} in {name})" if name not in (main, "") else "")
        for name, part in zip(counted, parts, strict=True)
    ]
    what = f"units of time are mixed: read as {main}, times lie" if len(inside) > 1 else "times lie"
    return [f"{what} {'; '.join(parts)}"]


def users_of_one_time(users: np.ndarray, timestamps: np.ndarray) -> int:
    """How many users have several rows, all of the same time.

    Args:
        users: `[rows] int32`.
        timestamps: `[rows] int64`.
    """
    if not len(users):
        return 0
    rows, limits = np.bincount(users), np.iinfo(np.int64)
    first, last = np.full(len(rows), limits.max), np.full(len(rows), limits.min)
    np.minimum.at(first, users, timestamps)
    np.maximum.at(last, users, timestamps)
    return int(np.count_nonzero((rows > 1) & (first == last)))


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
