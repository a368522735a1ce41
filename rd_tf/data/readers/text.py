"""Text files of check-ins, block by block: tables of any separator, JSON lines, lists of items.

A block ends with a line. Arrow reads it as a whole where every line is a row; else it is read line by line, so that a
line that is no row is counted, and costs no other one.
"""

import codecs
import contextlib
import csv
import dataclasses
import itertools
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rd_tf.data.readers.files import LineCount, RawTable, open_bytes, readable, shorten
from rd_tf.storage import InputError

MISFIT = "wrong number of fields"
UNCLOSED = "quoted field of more than one line"
NO_JSON = "no JSON object with ids and time"
# Bounds the longest record; fewer, larger blocks also mean fewer dictionaries to unify.
_BLOCK = 16 << 20
_IDS = ("user_column", "item_column")
_ID = pa.dictionary(pa.int32(), pa.binary())
_END = "\x02end of file\x03"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the rows stand in a text file.

    Attributes:
        words: the layout, for a report.
        needed: from a flag that names a column to the column's position, or in JSON lines its name.
        kind: "table", "json" (an object a line) or "lists" (a user and items a line).
        separator: of fields; None: any run of white space.
        width: fields of a row.
        head: lines before the first row.
        quoted: whether fields may stand in quotation marks.
        escaped: whether a backslash takes a character's meaning from it.
        multiline: whether quoted fields may hold line breaks.
        encoding: of the file; empty: UTF-8, or UTF-16 with a byte-order mark.
    """

    words: str
    needed: dict[str, Any]
    kind: str = "table"
    separator: str | None = ","
    width: int = 0
    head: int = 0
    quoted: bool = False
    escaped: bool = False
    multiline: bool = False
    encoding: str = ""


def blocks(path: str, encoding: str = "") -> Iterator[bytes]:
    """The file as UTF-8 without a byte-order mark, some megabytes at a time, each ending with a line.

    Bytes that the encoding does not have stay as they are.

    Raises:
        InputError: the file is missing, empty or damaged, has another encoding, or a line is too long.
    """
    some = False
    with readable(path), open_bytes(path) as stream:
        data = stream.read(_BLOCK)
        encoding = encoding or ("utf-16" if data.startswith(_UTF_16) else "")
        text, rest, is_first = _as_utf_8(encoding), b"", True
        while True:
            try:
                block = rest + text(data, not data)
            except UnicodeError as error:
                raise InputError(f"{path} is not {encoding} ({error}); give another --encoding") from None
            block, is_first = block.removeprefix(codecs.BOM_UTF8) if is_first else block, False
            # A carriage return at the end may be half of a line end.
            cut = (block.rfind(b"\n") + 1 or block.rfind(b"\r", 0, -1) + 1) if data else len(block)
            if not cut and len(block) >= _BLOCK:
                raise InputError(f"{path} cannot be read; a record may be {_BLOCK >> 20} MiB long at most")
            some = some or cut > 0
            if cut:
                yield block[:cut]
            if not data:
                break
            rest, data = block[cut:], stream.read(_BLOCK)
    if not some:
        raise InputError(f"{path} is empty; give a file that holds check-ins")


def _as_utf_8(encoding: str) -> Callable[[bytes, bool], bytes]:
    """From bytes of the encoding, and whether they are the last, to UTF-8."""
    if not encoding or codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        return lambda data, is_last: data
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    return lambda data, is_last: decoder.decode(data, is_last).encode("utf-8", "surrogateescape")


def first_lines(path: str, encoding: str = "") -> Iterator[bytes]:
    """The file's lines without their ends and without a byte-order mark, as UTF-8.

    Raises:
        InputError: as `blocks`.
    """
    return itertools.chain.from_iterable(block.splitlines() for block in blocks(path, encoding))


def split_fields(line: bytes, separator: str | None, quoted: bool, escaped: bool = False) -> list[bytes] | None:
    """The fields of a line; None where a quotation mark is opened in it and not closed.

    Args:
        line: without its end.
        separator: of fields; None: any run of white space. One of several bytes separates plain fields.
        quoted: whether fields may stand in quotation marks.
        escaped: whether a backslash takes a character's meaning from it.
    """
    if separator is None:
        # Not split(), which takes \v for white space; RE2, by which rows are read, does not.
        return re.findall(rb"[^ \t\n\r\f]+", line)
    is_plain = not (quoted and b'"' in line) and not (escaped and b"\\" in line)
    if is_plain or len(separator.encode()) > 1:
        return line.split(separator.encode())
    # A second line is asked for only where the first goes on.
    reader = csv.reader((line.decode("latin-1"), ""), **_dialect(separator, quoted, escaped))
    fields = next(reader)
    return [field.encode("latin-1") for field in fields] if reader.line_num == 1 else None


def _dialect(separator: str, quoted: bool, escaped: bool) -> dict[str, Any]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return {"delimiter": separator, "quoting": quoting, "escapechar": "\\" if escaped else None}


def read_text_table(path: str, layout: Layout) -> RawTable:
    """Reads one text file.

    Args:
        path: the file, plain or compressed.
        layout: how its rows stand in it.

    Raises:
        InputError: the file is missing, empty or damaged; a quotation mark is never closed (`layout.multiline`).
    """
    return RawTable.joined(list(read_text_pieces(path, layout)))


def read_text_pieces(path: str, layout: Layout) -> Iterator[RawTable]:
    """Reads one text file, some megabytes at a time; otherwise as `read_text_table`.

    Yields:
        One table at least.
    """
    with _long_fields():
        yield from _Reader(path, layout).pieces()


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Lets Python's reader take fields as long as they come."""
    limit = csv.field_size_limit(1 << 30)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _filled_lines(block: bytes) -> list[bytes]:
    """The lines that are not blank, without their ends."""
    return [line for line in block.splitlines() if line]


def _line_numbers(block: bytes, first: int) -> tuple[int, Sequence[int] | np.ndarray]:
    """How many lines a block has, and the numbers of those that are not blank, counted on from `first`."""
    total = block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n") + (block[-1:] not in (b"\n", b"\r"))
    characters = np.frombuffer(block, np.uint8)
    is_end = (characters == 10) | (characters == 13)
    starts = ~is_end
    starts[1:] &= is_end[:-1]
    if np.count_nonzero(starts) == total:
        return total, range(first, first + total)
    is_end[:-1] &= ~((characters[:-1] == 13) & (characters[1:] == 10))
    return total, first + np.searchsorted(np.flatnonzero(is_end), np.flatnonzero(starts))


class _Reader:
    """Reads a file; counts its lines and what is no row."""

    def __init__(self, path: str, layout: Layout) -> None:
        self._path, self._layout = path, layout
        self._lines, self._rows = LineCount(), 0
        self._misfits = dict[str, int]()
        # The first line that is no row, why, its content and, where it goes on in the next line, its fields.
        self._first: tuple[int, str, bytes, int | None] | None = None
        # The number of a row, and those of the lines of it and the rows after it.
        self._row_lines: list[tuple[int, Sequence[int] | np.ndarray]] = []

    def pieces(self) -> Iterator[RawTable]:
        layout, some = self._layout, False
        if layout.multiline:
            yield from self._multiline_pieces()
            return
        for block in self._body():
            total, numbers = _line_numbers(block, self._lines.total + 1)
            self._lines.total += total
            self._lines.blank += total - len(numbers)
            if layout.kind == "lists":
                piece = self._lists(block, numbers)
            elif layout.kind == "json":
                piece = self._by_line(numbers, _filled_lines(block), self._json_values)
            elif layout.separator is None:
                piece = self._by_pattern(block, numbers)
            else:
                piece = self._table(block, numbers)
            yield piece
            some = True
        if not some:
            yield self._piece({flag: [] for flag in layout.needed}, [])

    def _body(self) -> Iterator[bytes]:
        """The blocks without the lines of the head."""
        for block in blocks(self._path, self._layout.encoding):
            place = 0
            while self._lines.head < self._layout.head and place < len(block):
                found = _LINE_END.search(block, place)
                place = found.end() if found else len(block)
                self._lines.head += 1
                self._lines.total += 1
            if place < len(block):
                yield block[place:]

    def _piece(self, columns: dict[str, Any], numbers: Sequence[int] | np.ndarray) -> RawTable:
        """The table of columns, Arrow's or lists of bytes, whose rows stand in lines."""
        self._row_lines.append((self._rows, numbers))
        self._rows += len(numbers)
        arrays = {
            flag: values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, pa.binary())])
            for flag, values in columns.items()
        }
        for flag in _IDS:
            if arrays[flag].type != _ID:
                arrays[flag] = pc.dictionary_encode(arrays[flag])
        misfits, self._misfits = self._misfits, {}
        return RawTable.of(arrays, misfits, self._locate, self._lines)

    def _table(self, block: bytes, numbers: Sequence[int] | np.ndarray) -> RawTable:
        layout = self._layout
        separator = layout.separator.encode() if layout.separator else b""
        readable_by_arrow = block
        if len(separator) > 1:
            readable_by_arrow, separator = block.replace(separator, b"\x01"), b"\x01"
        # The mark of a file's beginning is part of an id here, and Arrow would take it off.
        is_plain = not block.startswith(codecs.BOM_UTF8) and not (readable_by_arrow is not block and b"\x01" in block)
        if len(numbers) and is_plain:
            try:
                table = self._arrow_table(readable_by_arrow, separator.decode())
            except pa.ArrowInvalid:
                table = None
            # A quoted field of more than one line leaves fewer rows. One that is open at the end Arrow takes for whole.
            if table is not None and len(table) == len(numbers) and not self._ends_open(block):
                return self._piece({flag: table[str(place)] for flag, place in layout.needed.items()}, numbers)
        return self._by_line(numbers, _filled_lines(block), self._table_values)

    def _ends_open(self, block: bytes) -> bool:
        layout = self._layout
        last = block.rstrip(b"\r\n")
        last = last[max(last.rfind(b"\n"), last.rfind(b"\r")) + 1 :]
        return layout.quoted and split_fields(last, layout.separator, True, layout.escaped) is None

    def _arrow_table(self, block: bytes, separator: str) -> pa.Table:
        layout = self._layout
        return pyarrow.csv.read_csv(
            pa.BufferReader(block),
            pyarrow.csv.ReadOptions(
                block_size=max(len(block), 1), column_names=[str(place) for place in range(layout.width)]
            ),
            pyarrow.csv.ParseOptions(
                delimiter=separator,
                quote_char='"' if layout.quoted else False,
                escape_char="\\" if layout.escaped else False,
            ),
            pyarrow.csv.ConvertOptions(
                column_types={str(n): _ID if flag in _IDS else pa.binary() for flag, n in layout.needed.items()},
                include_columns=[str(place) for place in layout.needed.values()],
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )

    def _by_line(self, numbers: Sequence[int] | np.ndarray, lines: list[bytes], values_of: Any) -> RawTable:
        columns: dict[str, list[bytes]] = {flag: [] for flag in self._layout.needed}
        of_rows, fill = [], list(columns.values())
        for number, line in zip(numbers, lines, strict=True):
            values = values_of(line)
            if isinstance(values, str):
                self._misfit(values, int(number), line)
                continue
            of_rows.append(number)
            for column, value in zip(fill, values, strict=True):
                column.append(value)
        return self._piece(columns, np.array(of_rows, np.int64))

    def _table_values(self, line: bytes) -> list[bytes] | str:
        layout = self._layout
        fields = split_fields(line, layout.separator, layout.quoted, layout.escaped)
        return UNCLOSED if fields is None else self._needed(fields)

    def _needed(self, fields: list[bytes]) -> list[bytes] | str:
        # An empty field beyond the last column does not count.
        if len(fields) < self._layout.width or any(fields[self._layout.width :]):
            return MISFIT
        return [fields[place] for place in self._layout.needed.values()]

    def _json_values(self, line: bytes) -> list[bytes] | str:
        try:
            found = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            return NO_JSON
        if not isinstance(found, dict):
            return NO_JSON
        values = [found.get(name) for name in self._layout.needed.values()]
        known = all(
            value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)) for value in values
        )
        return [_json_bytes(value) for value in values] if known else NO_JSON

    def _by_pattern(self, block: bytes, numbers: Sequence[int] | np.ndarray) -> RawTable:
        layout = self._layout
        names = {place: flag for flag, place in layout.needed.items()}
        # RE2's \s and \S are ASCII, and bytes are matched, so an id that is not UTF-8 survives to its message.
        groups = (rf"(?P<{names[place]}>\S+)" if place in names else r"\S+" for place in range(layout.width))
        lines = _filled_lines(block)
        pattern = r"^\s*" + r"\s+".join(groups) + r"\s*$"
        found = pc.extract_regex(pa.array(lines, pa.binary()), pattern)
        fits = found.is_valid().to_numpy(zero_copy_only=False)
        numbers = np.asarray(numbers)
        for place in np.flatnonzero(~fits):
            self._misfit(MISFIT, int(numbers[place]), lines[place])
        found = found.drop_null()
        return self._piece({flag: pa.chunked_array([found.field(flag)]) for flag in layout.needed}, numbers[fits])

    def _lists(self, block: bytes, numbers: Sequence[int] | np.ndarray) -> RawTable:
        layout = self._layout
        lists = [split_fields(line, layout.separator, False) or [line] for line in _filled_lines(block)]
        items = [item for fields in lists for item in fields[1:]]
        lengths = [len(fields) - 1 for fields in lists]
        users = list(itertools.chain.from_iterable([fields[0]] * (len(fields) - 1) for fields in lists))
        return self._piece({"user_column": users, "item_column": items}, np.repeat(np.asarray(numbers), lengths))

    def _misfit(self, reason: str, number: int, line: bytes, count: int | None = None) -> None:
        self._misfits[reason] = self._misfits.get(reason, 0) + 1
        self._first = self._first or (number, reason, line, count)

    def _multiline_pieces(self) -> Iterator[RawTable]:
        layout = self._layout
        lines = (line for block in self._body() for line in block.splitlines(keepends=True))
        # The end is a record of its own unless an open quotation mark has swallowed it.
        text = itertools.chain((line.decode("latin-1") for line in lines), [_END])
        assert layout.separator is not None
        reader = csv.reader(text, **_dialect(layout.separator, layout.quoted, layout.escaped))
        begin, ended = 0, False
        while not ended:
            columns: dict[str, list[bytes]] = {flag: [] for flag in layout.needed}
            numbers: list[int] = []
            for fields in itertools.islice(reader, 2**19):
                line, read = self._lines.head + begin + 1, reader.line_num - begin
                begin = reader.line_num
                if fields == [_END] and read == 1:
                    ended = True
                    break
                if fields and fields[-1].endswith(_END):
                    what = "a quotation mark is opened and never closed"
                    raise InputError(f"{self._path}, line {line}: {what}; close it, or pass --quote=none")
                self._lines.total += read
                self._lines.continued += read - 1
                if not fields:
                    self._lines.blank += 1
                    continue
                values = self._needed([field.encode("latin-1") for field in fields])
                if isinstance(values, str):
                    self._misfit(values, line, layout.separator.join(fields).encode("latin-1"), len(fields))
                    continue
                numbers.append(line)
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
            yield self._piece(columns, np.array(numbers, np.int64))

    def _locate(self, row: int | None) -> tuple[str, str | None]:
        line = None
        if row is not None:
            first, numbers = self._row_lines[bisect_right(self._row_lines, row, key=lambda each: each[0]) - 1]
            line = int(numbers[row - first])
        if self._first and (line is None or self._first[0] < line):
            return f"line {self._first[0]}", self._described(*self._first)
        return f"line {line}", None

    def _described(self, number: int, reason: str, line: bytes, count: int | None) -> str:
        layout, shown = self._layout, shorten(line)
        if reason == NO_JSON:
            return f"{shown} is {NO_JSON}"
        if reason == UNCLOSED:
            end = self._closed_in(number)
            how = f"is closed only in line {end}" if end else "never closed"
            what = f"a quotation mark is opened and {how} ({shown})"
            reads = "; --quote=none reads it as a plain character"
            return what + reads + ("; --multiline_fields reads fields of more than one line" if end else "")
        if count is None:
            count = len(split_fields(line, layout.separator, layout.quoted, layout.escaped) or [])
        what = f"{count} fields instead of {layout.width} ({shown})"
        if layout.quoted and not layout.escaped and b'\\"' in line:
            what += "; --escape=backslash reads quotation marks behind a backslash"
        return what

    def _closed_in(self, number: int) -> int | None:
        layout = self._layout
        assert layout.separator is not None
        lines = (line for block in blocks(self._path, layout.encoding) for line in block.splitlines(keepends=True))
        text = (line.decode("latin-1") for line in itertools.islice(lines, number - 1, None))
        reader = csv.reader(itertools.chain(text, [_END]), **_dialect(layout.separator, layout.quoted, layout.escaped))
        with _long_fields():
            fields = next(reader)
        return None if fields and fields[-1].endswith(_END) else number + reader.line_num - 1


def _json_bytes(value: str | int | float | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
