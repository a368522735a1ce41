"""Reads check-ins: which layout a file has, and the rows of all files."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rd_tf.data.readers.checked_rows import (
    NO_RANGES,
    ORDER,
    CheckedFile,
    TimeRanges,
    check_time_format,
    common_unit,
    joined_ranges,
    range_warnings,
    users_of_one_time,
)
from rd_tf.data.readers.files import (
    LineCount,
    RawTable,
    bare_name,
    is_parquet,
    read_parquet_pieces,
    read_parquet_table,
    shorten,
)
from rd_tf.data.readers.text import Layout, first_lines, read_text_pieces, read_text_table, split_fields
from rd_tf.storage import InputError

_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": None, "\\t": "\t", " ": None}
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'", "::": "'::'", None: "white space"}
_SNIFFED = (",", ";", "\t", "|", None)
_USER, _ITEM, _TIME, _VALUE = "user_column", "item_column", "time_column", "value_column"
# Lines that tell a layout.
_FIRST = 50
_NUMBER = re.compile(rb"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_ISO_TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")
_C_TIME = re.compile(rb"[A-Z][a-z]{2} [A-Z][a-z]{2} +\d\d? \d\d:\d\d:\d\d [+-]\d{4} \d{4}")
_RECBOLE = re.compile(rb"[^:]*:(token|float|token_seq|float_seq)")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files are read: the flags of the same names, each overruling what the files' first lines tell.

    Raises:
        InputError: a flag that means nothing.
    """

    separator: str = ""
    columns: Sequence[str] = ()
    skip_lines: int = 0
    quote: str = "auto"
    escape: str = "none"
    multiline_fields: bool = False
    encoding: str = ""
    time_format: str = ""
    value_column: str = "rating"
    min_rating: str = ""

    def __post_init__(self) -> None:
        if re.search(r'["\r\n\x01]', self.separator):
            raise InputError(
                f"--separator={self.separator!r} separates no fields; give a character, or a name such as tab"
            )
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, UnicodeError, ValueError):
            raise InputError(
                f"--encoding={self.encoding} is not known to Python; give one such as latin-1, cp1252 or utf-16"
            ) from None
        if self.time_format:
            check_time_format(self.time_format)
        if self.min_rating and not _NUMBER.fullmatch(self.min_rating.encode()):
            raise InputError(
                f"--min_rating={self.min_rating} is no number; give the lowest rating that counts, such as 4"
            )

    @property
    def min_value(self) -> float | None:
        """The lowest rating of a row that is kept; None keeps all."""
        return float(self.min_rating) if self.min_rating else None

    def read_columns(self, columns: Mapping[str, str]) -> dict[str, str]:
        """The columns by their flags, with that of the ratings where it is needed."""
        return {**columns, _VALUE: self.value_column} if self.min_rating else dict(columns)

    def given_separator(self) -> str | None:
        """--separator as `Layout` has it; it is not empty."""
        return _SEPARATORS.get(self.separator, self.separator)


# Columns without a header, in order; None is not read.
_PRESETS: dict[str, tuple[str, list[list[str | None]], list[str | None]]] = {
    "movielens": (
        "MovieLens' ratings (user, item, rating, time)",
        [[_USER, _ITEM, _VALUE, _TIME]],
        ["::", "\t", ",", None],
    ),
    "foursquare": (
        "Foursquare's check-ins (user, place, ..., UTC time)",
        [[_USER, _ITEM, None, None, None, None, None, _TIME], [_USER, _ITEM, _TIME, None]],
        ["\t"],
    ),
    "snap": (
        "SNAP's check-ins (user, ISO time, latitude, longitude, place)",
        [[_USER, _TIME, None, None, _ITEM]],
        ["\t"],
    ),
    "triples": ("triples (user, item, rating)", [[_USER, _ITEM, _VALUE]], [None]),
}
_HEADERS = {"csv": ",", "tsv": "\t", "recbole": "\t"}
_ML_HEADER = [b"userid", b"movieid", b"rating", b"timestamp"]


def detect_format(path: str, columns: Mapping[str, str], reading: Reading) -> str:
    """Tells a file's layout by its first lines, and by its ending where these would do for several.

    Returns:
        "csv", "tsv", "parquet", "snap", "triples", "movielens", "foursquare", "recbole", "jsonl" or "item_lists".

    Raises:
        InputError: neither tells; the message names the flags that would read it.
    """
    if is_parquet(path):
        return "parquet"
    lines = _head(path, reading)
    if not lines:
        raise InputError(f"{path} has no line behind --skip_lines={reading.skip_lines}; give a lower number")
    ending = bare_name(path).rpartition(".")[2]
    line = lines[0]
    if line.lstrip().startswith((b"{", b"[{")) or ending in ("jsonl", "ndjson"):
        return "jsonl"
    if reading.columns or reading.separator:
        return "csv"
    if ending == "inter" or all(_RECBOLE.fullmatch(field) for field in line.split(b"\t")):
        return "recbole"
    if any(_has_names(line, separator, columns) for separator in _SNIFFED):
        return "tsv" if ending == "tsv" else "csv"
    tabs = [each.split(b"\t") for each in lines]
    words = [split_fields(each, None, False) or [] for each in lines]
    if _are_ratings([each.split(b"::") for each in lines]) or _are_ratings(tabs) or _is_ml_header(line):
        return "movielens"
    if all((len(each) == 8 and _C_TIME.match(each[7])) or (len(each) == 4 and _C_TIME.match(each[2])) for each in tabs):
        return "foursquare"
    if len(tabs[0]) == 5 and (ending == "txt" or _ISO_TIME.match(tabs[0][1])):
        return "snap"
    if ending in _HEADERS:
        return ending
    lengths = [len(each) for each in words]
    plain = not any(re.search(rb"[,;|\"]", each) for each in lines)
    if lengths[0] == 3 and (ending == "txt" or plain) and lengths.count(3) * 2 >= len(lengths):
        if ending == "txt" or all(_NUMBER.fullmatch(each[2]) for each in words if len(each) == 3):
            return "triples"
    elif plain and max(lengths) > 2 and (len({*lengths} - {1}) > 1 or max(lengths) > 4):
        return "item_lists"
    best = max(_SNIFFED, key=lambda separator: len(split_fields(line, separator, False) or []))
    fields = split_fields(line, best, False) or []
    if (
        best is not None
        and len(fields) > 1
        and all(re.fullmatch(rb'[^\W\d][\w ."-]*', each.strip()) for each in fields)
    ):
        # The names of columns, none of which are ours: that error tells them.
        return "csv"
    named = ",".join(filter(None, columns.values()))
    advice = f"--columns={named}, in the order of its columns with other names for the others"
    if len(fields) > 2:
        given = next(name for name, each in _SEPARATORS.items() if each == best)
        advice = f"--separator={given} {advice}" + (", --format=item_lists" if best is None else "")
    raise InputError(
        f"{path}: its first line ({shorten(line)}) tells no layout; give {advice} or --format (csv, tsv, movielens,"
        " foursquare, recbole, jsonl, item_lists, snap or triples)"
    )


def _head(path: str, reading: Reading) -> list[bytes]:
    """Some lines that are not blank, behind those that are skipped."""
    lines = first_lines(path, reading.encoding)
    found = list(zip(range(reading.skip_lines + 4 * _FIRST), lines, strict=False))[reading.skip_lines :]
    return [line for _, line in found if line.strip()][:_FIRST]


def _are_ratings(rows: list[list[bytes]]) -> bool:
    """Whether each has a user, an item, a rating and seconds; a thousand millions are seconds and no rating."""
    return all(
        len(row) == 4 and _NUMBER.fullmatch(row[2]) and re.fullmatch(rb"\s*\d{9,10}(\.0+)?\s*", row[3]) for row in rows
    )


def _is_ml_header(line: bytes) -> bool:
    return line.lower().split(b",") == _ML_HEADER


def _has_names(line: bytes, separator: str | None, columns: Mapping[str, str]) -> bool:
    header = _names(line, separator, separator is not None)
    return all(name in header or name in (each.strip(" ") for each in header) for name in columns.values() if name)


def _names(line: bytes, separator: str | None, quoted: bool, typed: bool = False) -> list[str]:
    fields = split_fields(line, separator, quoted)
    names = [field.decode("utf-8", "replace") for field in fields or split_fields(line, separator, False) or []]
    return [name.rpartition(":")[0] or name for name in names] if typed else names


def find_layout(path: str, format: str, columns: Mapping[str, str], reading: Reading) -> Layout:
    """Finds how the rows of a text file stand in it.

    Args:
        path: the file.
        format: its layout.
        columns: from the flags `user_column`, `item_column` and any others to column names; an empty name is not read.
        reading: flags that overrule what the file tells.

    Raises:
        InputError: the file is missing, empty, damaged, or has no such columns.
    """
    columns = {flag: name for flag, name in columns.items() if name}
    shared: dict[str, Any] = {"escaped": reading.escape == "backslash", "multiline": reading.multiline_fields}
    shared |= {"encoding": reading.encoding, "head": reading.skip_lines}
    if format == "jsonl":
        return _json_layout(path, columns, reading)
    if format == "item_lists":
        _check_no_value(path, format, columns)
        separator = reading.given_separator() if reading.separator else None
        needed = {_USER: 0, _ITEM: 1}
        words = f"item lists (user, item, item, ...), separated by {_said(separator)}"
        return Layout(words, needed, "lists", separator, head=reading.skip_lines, encoding=reading.encoding)
    if reading.columns:
        separator, width, needed = _given_columns(path, format, columns, reading)
        words, quoted = "text without a header", separator != "\t"
    elif format in _PRESETS:
        separator, width, needed, header = _preset(path, format, columns, reading)
        shared["head"] += header
        words, quoted = _PRESETS[format][0], False
    else:
        separator, width, needed, quoted = _of_header(path, format, columns, reading)
        shared["head"] += 1
        words = "RecBole's atomic file" if format == "recbole" else "text with a header"
    quoted = quoted and separator is not None and len(separator.encode()) == 1
    if reading.quote != "auto":
        quoted = reading.quote == "double"
    is_quoted = quoted or reading.escape == "backslash" or reading.multiline_fields
    if is_quoted and (separator is None or len(separator.encode()) > 1):
        raise InputError(
            f"{path} is separated by {_said(separator)}, where no field is quoted; leave out --quote, --escape and"
            " --multiline_fields, or give another --separator"
        )
    return Layout(
        f"{words}, separated by {_said(separator)}", needed, "table", separator, width, quoted=quoted, **shared
    )


def _said(separator: str | None) -> str:
    return _NAMES.get(separator, repr(separator))


def _check_no_value(path: str, format: str, columns: Mapping[str, str]) -> None:
    if _VALUE in columns:
        raise InputError(f"{path}: --format={format} has no ratings; leave out --min_rating")


def _preset(
    path: str, format: str, columns: Mapping[str, str], reading: Reading
) -> tuple[str | None, int, dict[str, Any], int]:
    _, choices, separators = _PRESETS[format]
    lines = _head(path, reading) or [b""]
    header = int(format == "movielens" and _is_ml_header(lines[0]))
    if reading.separator:
        separators = [reading.given_separator()]
    counts = [(separator, len(split_fields(lines[0], separator, False) or [])) for separator in separators]
    fitting = [(separator, names) for separator, count in counts for names in choices if count == len(names)] or [
        (separators[0], choices[0])
    ]
    separator, names = fitting[0]
    if _VALUE in columns and _VALUE not in names:
        _check_no_value(path, format, columns)
    return separator, len(names), {flag: names.index(flag) for flag in columns if flag in names}, header


def _given_columns(
    path: str, format: str, columns: Mapping[str, str], reading: Reading
) -> tuple[str | None, int, dict[str, Any]]:
    names = [name.strip() for name in reading.columns]
    for flag, name in columns.items():
        if names.count(name) != 1:
            found = f"has {name!r} {names.count(name)} times" if name in names else f"does not have {name!r}"
            raise InputError(
                f"--columns={','.join(names)} {found}, which --{flag} names; name the file's columns in order"
            )
    if reading.separator:
        separator = reading.given_separator()
    else:
        line = next(iter(_head(path, reading)), b"")
        order = ("\t", "::", *_SNIFFED) if format == "tsv" else ("::", *_SNIFFED)
        counts = {each: len(split_fields(line, each, each not in (None, "\t", "::")) or []) for each in order}
        if len(names) not in counts.values():
            raise InputError(
                f"{path}: no separator of {', '.join(map(_said, order))} makes the {len(names)} columns of --columns of"
                f" its first line {shorten(line)}; give --separator or other --columns"
            )
        separator = next(each for each, count in counts.items() if count == len(names))
    return separator, len(names), {flag: names.index(name) for flag, name in columns.items()}


def _of_header(
    path: str, format: str, columns: Mapping[str, str], reading: Reading
) -> tuple[str | None, int, dict[str, Any], bool]:
    number = reading.skip_lines + 1
    lines = list(zip(range(number + 20), first_lines(path, reading.encoding), strict=False))[number - 1 :]
    line = lines[0][1] if lines else b""
    if not line.strip():
        raise InputError(
            f"{path} is blank in line {number}; its first line should name the columns (--skip_lines={number} skips it)"
        )
    default = _HEADERS[format]
    order = [reading.given_separator()] if reading.separator else [default, *(s for s in _SNIFFED if s != default)]
    most = max(order, key=lambda each: len(_names(line, each, each is not None)))
    separator = next((each for each in order if _has_names(_untyped(line, format), each, columns)), most)
    named_in_quotes = all(re.fullmatch(rb'"[^"]*"', field) for field in line.split((separator or " ").encode()))
    quoted = separator is not None and (separator != "\t" or named_in_quotes)
    if reading.quote != "auto":
        quoted = reading.quote == "double"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: the header is not UTF-8 ({error}); save the file as UTF-8 text or pass --encoding,"
            " such as latin-1"
        ) from None
    header = _names(_untyped(line, format), separator, quoted)
    exact = all(header.count(name) == 1 for name in columns.values())
    header = header if exact else [name.strip(" ") for name in header]
    for flag, name in columns.items():
        if header.count(name) != 1:
            found = f"has {header.count(name)} columns" if name in header else "has no column"
            there = ", ".join(map(shorten, header[:20])) + (", ..." if len(header) > 20 else "")
            raise InputError(
                f"{path}, line {number}: the header {found} {name!r}, which --{flag} names; it has {there}"
                f"{_header_advice(lines, separator, header, columns, format, flag)}"
            )
    if format == "recbole":
        types = dict(
            zip(
                header,
                (field.rpartition(b":")[2].decode() for field in line.split((separator or " ").encode())),
                strict=False,
            )
        )
        for flag, name in columns.items():
            if types[name].endswith("_seq"):
                raise InputError(
                    f"{path}, line {number}: the column {name}:{types[name]}, which --{flag} names, holds sequences"
                )
    return separator, len(header), {flag: header.index(name) for flag, name in columns.items()}, quoted


def _untyped(line: bytes, format: str) -> bytes:
    return re.sub(rb":(token|float)(_seq)?(?=\W|$)", b"", line) if format == "recbole" else line


def _header_advice(
    lines: list[tuple[int, bytes]],
    separator: str | None,
    header: list[str],
    columns: Mapping[str, str],
    format: str,
    flag: str,
) -> str:
    for number, line in lines[1:]:
        if any(_has_names(_untyped(line, format), each, columns) for each in _SNIFFED):
            return f"; line {number + 1} has them: pass --skip_lines={number}"
    if any(_NUMBER.fullmatch(name.encode()) or _ISO_TIME.fullmatch(name.encode()) for name in header):
        others = ", with other names for the others" if len(header) > len(columns) else ""
        named = ",".join(columns.values())
        return f"; where no line names the columns, pass --columns={named} in the order of the file{others}"
    if flag == _TIME and columns[flag] not in header and len(header) > 1:
        return "; where the rows stand in the order of their times, pass --time_column= with nothing behind it"
    return ""


def _json_layout(path: str, columns: Mapping[str, str], reading: Reading) -> Layout:
    first: dict[str, Any] = {}
    lines = _head(path, reading)
    for line in lines:
        if lines[0].lstrip().startswith(b"["):
            raise InputError(f"{path} is one JSON array; write an object a line, such as by jq -c '.[]'")
        try:
            found = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        first |= found if isinstance(found, dict) else {}
    for flag, name in columns.items():
        if name not in first:
            there = ", ".join(map(shorten, list(first)[:20])) or "no field, as they are no JSON objects of a line each"
            raise InputError(
                f"{path}: its first lines have no field {name!r}, which --{flag} names; they have {there}; name others"
            )
    return Layout("JSON lines", dict(columns), "json", head=reading.skip_lines, encoding=reading.encoding)


_TRIPLES_ADVICE = (
    ", its third column taken for ratings (where it is a time: --separator=space --columns=user_id,item_id,timestamp)"
)


@dataclasses.dataclass(frozen=True)
class FoundInput:
    """A file whose layout is known.

    Attributes:
        path: the file.
        layout: of its rows; None: it is a Parquet file.
        columns: from the flags `user_column`, `item_column`, `time_column` and, where it is read, `value_column` to
            names, empty where columns have none.
        words: what the file was taken for, in one line.
        reading: the flags.
    """

    path: str
    layout: Layout | None
    columns: dict[str, str]
    words: str
    reading: Reading

    def table(self) -> RawTable:
        """The file's rows."""
        return read_text_table(self.path, self.layout) if self.layout else read_parquet_table(self.path, self._named())

    def checked_pieces(self, fractional: bool) -> CheckedFile:
        """The file's rows in pieces, for a file of any size; `fractional` is that of `CheckedFile`."""
        pieces = (
            read_text_pieces(self.path, self.layout) if self.layout else read_parquet_pieces(self.path, self._named())
        )
        return CheckedFile(
            self.path, pieces, self.columns, 0, fractional, self.reading.time_format, self.reading.min_value
        )

    def _named(self) -> dict[str, str]:
        return {flag: name for flag, name in self.columns.items() if name}


def find_input(path: str, format: str, columns: dict[str, str], reading: Reading) -> FoundInput:
    """Finds the layout of a file.

    Args:
        path: .csv, .tsv, .txt and so on, plain or compressed, or .parquet.
        format: a layout of `detect_format`, or "auto": by the file.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names; an empty time column takes
            the order of the rows for the time.
        reading: flags that overrule what the file tells.

    Raises:
        InputError: the layout is unknown, or the file cannot be used.
    """
    columns = reading.read_columns(columns)
    if format == "auto":
        format = detect_format(path, columns, reading)
    layout = None if format == "parquet" else find_layout(path, format, columns, reading)
    if layout and not reading.columns and (format in _PRESETS or layout.kind == "lists"):
        columns = dict.fromkeys(columns, "")
    words, has_time = layout.words if layout else "Parquet", bool(columns[_TIME])
    if layout:
        has_time = _TIME in layout.needed
    order = f"in the order of {columns[_TIME] or 'their times'}" if has_time else "in the order of the lines"
    advice = _TRIPLES_ADVICE if format == "triples" and not reading.min_rating else ""
    return FoundInput(path, layout, columns, f"{words}, {order}{advice}", reading)


class Tally:
    """Counts what is read of several files, and what is left out.

    Args:
        skip_bad_rows: leave out and count rows that cannot be read, rather than raise.

    Attributes:
        rows_read: readable and skipped rows.
        skipped: from the reason to the number of rows left out.
        first_skipped: where the first of them stands and what it holds; empty if there is none.
        below_min_rating: rows below --min_rating.
        lines: of all files; None where one of them has no lines.
    """

    def __init__(self, skip_bad_rows: bool) -> None:
        self._skip_bad_rows = skip_bad_rows
        self.rows_read, self.skipped, self.first_skipped = 0, dict[str, int](), ""
        self.below_min_rating = 0
        self.lines: LineCount | None = LineCount()

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


@dataclasses.dataclass(frozen=True)
class InputReport:
    """What a preparation says of its inputs.

    Attributes:
        inputs: what every file was taken for.
        lines: what the lines of the files are; None where one of them has no lines.
        below_min_rating: rows left out for their rating.
        warnings: a sentence each.
    """

    inputs: list[str] = dataclasses.field(default_factory=list)
    lines: LineCount | None = None
    below_min_rating: int = 0
    warnings: list[str] = dataclasses.field(default_factory=list)


def warnings_of(ranges: TimeRanges, unit: str, users_of_one_time: int) -> list[str]:
    """What is odd about the times of all inputs, a sentence each."""
    warnings = range_warnings(ranges, unit)
    if users_of_one_time:
        warnings.append(
            f"users whose times are all equal: {users_of_one_time:,}; their rows are in the order of the input"
        )
    return warnings


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
        report: what else there is to say of the files.
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
    report: InputReport = dataclasses.field(default_factory=InputReport)


def read_check_ins(
    paths: Sequence[str],
    format: str,
    columns: dict[str, str],
    skip_bad_rows: bool,
    reading: Reading | None = None,
) -> CheckIns:
    """Reads files one after another.

    Args:
        paths: files, plain or compressed.
        format: a layout of `detect_format`, or "auto": each file by its first lines and its ending.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names.
        skip_bad_rows: leave out and count rows that cannot be read, rather than raise.
        reading: flags that overrule what the files tell.

    Raises:
        InputError: a file cannot be used, or a row cannot be read; the message names file, line and value.
    """

    reading, found = reading or Reading(), list[str]()

    def tables() -> Iterator[NamedTable]:
        for path in paths:
            file = find_input(path, format, columns, reading)
            found.append(f"{path}: {file.words}")
            yield path, file.table(), file.columns

    check_ins = join_tables(tables(), skip_bad_rows, reading)
    return dataclasses.replace(check_ins, report=dataclasses.replace(check_ins.report, inputs=found))


def join_tables(tables: Iterable[NamedTable], skip_bad_rows: bool, reading: Reading | None = None) -> CheckIns:
    """Encodes tables one after another: one vocabulary, one kind of time.

    Args:
        tables: `(name, table, columns)`, one at least: the name for messages, the columns from the flags `user_column`,
            `item_column`, `time_column` to column names, empty where columns have none.
        skip_bad_rows: leave out and count rows that cannot be read, rather than raise.
        reading: of its flags `time_format` and `min_rating` matter.

    Raises:
        InputError: a row cannot be read; the message names table, place and value.
    """
    users, items = _Vocabulary(), _Vocabulary()
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    files: list[CheckedFile] = []
    paths: list[str] = []
    times: list[np.ndarray] = []
    tally, ranges, reading = Tally(skip_bad_rows), NO_RANGES, reading or Reading()
    for path, table, names in tables:
        file = CheckedFile(path, [table], names, tally.rows_read, False, reading.time_format, reading.min_value)
        [rows] = file
        tally.add(file.rows_read, file.skipped, file.first_skipped)
        tally.below_min_rating += file.below_min_rating
        tally.lines = tally.lines and table.lines and tally.lines + table.lines
        ranges = joined_ranges(ranges, file.ranges)
        parts.append((users.codes(rows.user_ids, rows.users), items.codes(rows.item_ids, rows.items)))
        paths.append(path)
        files.append(file)
        times.append(rows.timestamps)
    common = common_unit(paths, [file.unit for file in files], [file.too_large for file in files])
    all_users = np.concatenate([part[0] for part in parts])
    timestamps = np.concatenate(
        [part * factor if factor != 1 else part for part, factor in zip(times, common.factors, strict=True)]
    )
    same = 0 if common.unit == ORDER else users_of_one_time(all_users, timestamps)
    return CheckIns(
        users=all_users,
        items=np.concatenate([part[1] for part in parts]),
        timestamps=timestamps,
        user_ids=list(users.ids),
        item_ids=list(items.ids),
        time_unit=common.unit,
        rows_read=tally.rows_read,
        skipped=tally.skipped,
        first_skipped=tally.first_skipped,
        report=InputReport([], tally.lines, tally.below_min_rating, warnings_of(ranges, common.unit, same)),
    )


class _Vocabulary:
    """Ids of all files, numbered in order of appearance."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def codes(self, values: list[str], codes: np.ndarray) -> np.ndarray:
        numbers = np.array([self.ids.setdefault(value, len(self.ids)) for value in values], np.int32)
        return numbers[codes] if len(numbers) else np.zeros(0, np.int32)
