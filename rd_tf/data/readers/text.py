"""Text files of check-ins: lines, columns, separators."""

import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rd_tf.data.readers.files import RawTable, open_input, shorten
from rd_tf.storage import InputError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_END = "\x02end of file\x03"
# A byte that splits nothing: a line is one field, and one that holds this byte is no record at all.
NO_DELIMITER = "\x01"


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """Turns the troubles of reading a file into `InputError`."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"--input: {path} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"--input: {path} is a directory; name the files in it") from None
    except PermissionError:
        raise InputError(f"--input: {path} may not be read by this user; change its permissions") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged or truncated gzip file ({error}); fetch or write it again") from None


def open_bytes(path: str) -> BinaryIO:
    """Opens a file for reading; gzip is undone where the name ends in .gz or the content begins as gzip does."""
    with open_input(path) as file:
        zipped = file.read(2) == _GZIP_MAGIC
    file = open_input(path)
    return cast(BinaryIO, gzip.open(file, "rb")) if zipped or path.endswith(".gz") else file


def first_lines(path: str) -> Iterator[bytes]:
    """The file's lines without their ends and without a byte-order mark; a line's first megabyte at most.

    Raises:
        InputError: the file is missing, empty or damaged.
    """
    with readable(path), open_bytes(path) as file:
        line = file.readline(1 << 20).removeprefix(_BYTE_ORDER_MARK)
        if not line:
            raise InputError(f"{path} is empty; give a file that holds check-ins")
        while line:
            yield line.rstrip(b"\r\n")
            line = file.readline(1 << 20)


def skip_byte_order_mark(file: BinaryIO) -> None:
    """Moves a file that stands at its beginning behind the byte-order mark, if it has one."""
    if file.read(len(_BYTE_ORDER_MARK)) != _BYTE_ORDER_MARK:
        file.seek(0)


def records(path: str, delimiter: str | None, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Every record with the line it begins on: slow, made for finding the place of an error.

    Args:
        path: the file.
        delimiter: one character; None: any run of white space.
        quoted: whether fields may be quoted, and then hold delimiters and line breaks.

    Yields:
        `(line, fields)`, lines counted from 1; blank lines are passed over, as the fast reader does. Fields are Latin-1
        readings of the bytes, so that none is illegal.

    Raises:
        InputError: a quotation mark is opened and never closed.
    """
    limit = csv.field_size_limit(1 << 30)
    try:
        with readable(path), open_bytes(path) as file:
            skip_byte_order_mark(file)
            lines = io.TextIOWrapper(file, encoding="latin-1", newline="")
            if delimiter is None:
                for number, text in enumerate(lines, 1):
                    if text.strip("\r\n"):
                        # Not split(): to it, some bytes of UTF-8 read as Latin-1 are white space.
                        yield number, [text] if NO_DELIMITER in text else re.findall(r"[^ \t\f\r\n]+", text)
                return
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
            # The end is a record of its own unless an open quotation mark has swallowed it.
            reader = csv.reader(itertools.chain(lines, ["\n", _END]), delimiter=delimiter, quoting=quoting)
            line = 1
            for fields in reader:
                if fields == [_END]:
                    return
                if fields and fields[-1].endswith(_END):
                    opened = f"{path}, line {line}: a quotation mark is opened and never closed"
                    raise InputError(f"{opened}; close it, or double it where it is part of a value")
                if fields:
                    yield line, fields
                line = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


# Bounds the longest record; fewer, larger blocks also mean fewer dictionaries to unify.
_BLOCK = 16 << 20
_ID = pa.dictionary(pa.int32(), pa.binary())
_IDS = ("user_column", "item_column")
_LAST_FIELD = b"\x02end of file\x03"
# RE2's \s and \S are ASCII; binary input is matched byte by byte, so an id that is not UTF-8 survives to its message.
_TRIPLE = r"^\s*(?P<user>\S+)\s+(?P<item>\S+)\s+(?P<rating>\S+)\s*$"


@dataclasses.dataclass(frozen=True)
class _Layout:
    delimiter: str | None
    quoted: bool
    header_rows: int
    width: int
    needed: dict[str, int]  # From the flag that names a column to the column's position.


def read_text_table(path: str, format: str, columns: dict[str, str]) -> RawTable:
    """Reads one text file, plain or gzip.

    Args:
        path: the file.
        format: "csv", "tsv", "snap" or "triples".
        columns: from the flags `user_column`, `item_column` and any others to column names; for csv and tsv.

    Raises:
        InputError: the file is missing, empty, damaged or lacks a column; a quotation mark is never closed.
    """
    layout = _layout(path, format, columns)
    misfits = _Misfits()
    with _trouble_named(path, layout):
        try:
            with open_bytes(path) as stream:
                lines = pyarrow.csv.read_csv(*_arguments(stream, layout, None))
        except pa.ArrowInvalid:
            with open_bytes(path) as stream:
                lines = _from_latin_1(pyarrow.csv.read_csv(*_arguments(stream, layout, misfits)))
    _check_end(path, layout, lines)
    return _raw(path, layout, lines.slice(0, len(lines) - 1), misfits)


def read_text_pieces(path: str, format: str, columns: dict[str, str]) -> Iterator[RawTable]:
    """Reads one text file, some megabytes at a time; otherwise as `read_text_table`.

    Yields:
        One table at least.
    """
    layout = _layout(path, format, columns)
    misfits = _Misfits()
    pieces, lines = _pieces(path, layout, misfits), None
    while True:
        with _trouble_named(path, layout):
            following = next(pieces, None)
        if following is None:
            break
        if lines is not None:
            yield _raw(path, layout, lines, misfits)
        lines = following
    assert lines is not None
    _check_end(path, layout, lines)
    yield _raw(path, layout, lines.slice(0, len(lines) - 1), misfits)


def _layout(path: str, format: str, columns: dict[str, str]) -> _Layout:
    if format == "triples":
        return _Layout(None, False, 0, 3, {"user_column": 0, "item_column": 1})
    if format == "snap":
        return _Layout("\t", False, 0, 5, {"user_column": 0, "item_column": 4, "time_column": 1})
    return _layout_of_header(path, "," if format == "csv" else "\t", columns)


def _layout_of_header(path: str, delimiter: str, columns: dict[str, str]) -> _Layout:
    line, raw = next(records(path, delimiter, quoted=True), (0, []))
    if line != 1:
        raise InputError(f"{path} is {'blank in line 1' if line else 'empty'}; its first line should name the columns")
    try:
        header = [name.encode("latin-1").decode() for name in raw]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line 1: the header is not UTF-8 ({error}); save the file as UTF-8 text") from None
    for flag, name in columns.items():
        if header.count(name) != 1:
            found = f"has {header.count(name)} columns" if name in header else "has no column"
            there = ", ".join(map(shorten, header[:20])) + (", ..." if len(header) > 20 else "")
            raise InputError(f"{path}, line 1: the header {found} {name!r}, which --{flag} names; it has {there}")
    return _Layout(delimiter, True, 1, len(header), {flag: header.index(name) for flag, name in columns.items()})


class _WithEnd(io.RawIOBase):
    """A stream and one more record: it comes out whole unless an open quotation mark has swallowed it."""

    def __init__(self, stream: BinaryIO, end: bytes) -> None:
        self._stream = stream
        self._end = end

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if len(data) == size:
            return data
        # Arrow wants a line break within its first block, so the end must not wait for a read of its own.
        room = len(self._end) if size < 0 else size - len(data)
        rest, self._end = self._end[:room], self._end[room:]
        return data + rest


class _Misfits:
    """Counts rows of another number of fields, which the parser leaves out."""

    def __init__(self) -> None:
        self.count = self._taken = 0

    def __call__(self, row: Any) -> str:
        self.count += 1
        return "skip"

    def take_new(self) -> int:
        """Those since the last call."""
        new, self._taken = self.count - self._taken, self.count
        return new


def _pieces(path: str, layout: _Layout, misfits: _Misfits) -> Iterator[pa.Table]:
    """A file's records, bytes as they stand in the file, and a record of `_END`s, some megabytes at a time."""
    done = 0
    # The first record of another number of fields ends it.
    with contextlib.suppress(pa.ArrowInvalid), open_bytes(path) as stream:
        for batch in pyarrow.csv.open_csv(*_arguments(stream, layout, None)):
            yield pa.Table.from_batches([batch])
            done += len(batch)
        return
    with open_bytes(path) as stream:
        for batch in pyarrow.csv.open_csv(*_arguments(stream, layout, misfits)):
            left = batch.slice(min(done, len(batch)))
            done -= len(batch) - len(left)
            if len(left):
                yield _from_latin_1(pa.Table.from_batches([left]))


def _from_latin_1(table: pa.Table) -> pa.Table:
    def restore(values: pa.BinaryArray) -> pa.BinaryArray:
        if pc.all(pc.string_is_ascii(values.cast(pa.string())), min_count=0).as_py():
            return values
        return pa.array([value.decode().encode("latin-1") for value in values.to_pylist()], pa.binary())

    def restore_chunk(chunk: pa.Array) -> pa.Array:
        if pa.types.is_dictionary(chunk.type):
            return pa.DictionaryArray.from_arrays(chunk.indices, restore(chunk.dictionary))
        return restore(chunk)

    columns = [pa.chunked_array(map(restore_chunk, column.chunks), column.type) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _arguments(stream: BinaryIO, layout: _Layout, misfits: _Misfits | None) -> tuple[Any, ...]:
    """What pyarrow's CSV readers take.

    Without `misfits` a record of another number of fields is an `ArrowInvalid`. With them everything is read as
    Latin-1, since Arrow hands a misfit over as UTF-8, and to standard error where it is none.
    """
    if misfits:
        skip_byte_order_mark(stream)
    one_column = layout.delimiter is None
    width = 1 if one_column else layout.width
    delimiter = NO_DELIMITER if layout.delimiter is None else layout.delimiter
    names = [str(position) for position in range(width)]
    types = {str(place): _ID if flag in _IDS else pa.binary() for flag, place in layout.needed.items()}
    if one_column:
        types = {"0": pa.binary()}
    end = b"\n" + delimiter.encode().join([_LAST_FIELD] * width) + b"\n"
    return (
        pa.PythonFile(_WithEnd(stream, end), mode="r"),
        pyarrow.csv.ReadOptions(
            block_size=_BLOCK,
            column_names=names,
            skip_rows_after_names=layout.header_rows,
            encoding="latin-1" if misfits else "utf8",
        ),
        pyarrow.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if layout.quoted else False,
            newlines_in_values=layout.quoted,
            invalid_row_handler=misfits,
        ),
        pyarrow.csv.ConvertOptions(
            column_types=types, include_columns=list(types), strings_can_be_null=False, check_utf8=False
        ),
    )


@contextlib.contextmanager
def _trouble_named(path: str, layout: _Layout) -> Iterator[None]:
    with readable(path):
        try:
            yield
        except pa.ArrowInvalid as error:
            for _ in records(path, layout.delimiter, layout.quoted):
                pass  # Names the line where a quotation mark stays open, if that was the trouble.
            described = " ".join(str(error).split())
            raise InputError(
                f"{path} cannot be read ({described}); a record may be {_BLOCK >> 20} MiB long at most"
            ) from None


def _check_end(path: str, layout: _Layout, lines: pa.Table) -> None:
    last = lines.column(0)[-1].as_py() if len(lines) else None
    if last != _LAST_FIELD:
        for _ in records(path, layout.delimiter, layout.quoted):
            pass
        raise InputError(f"{path} ends inside a record; mend its last lines")


def _raw(path: str, layout: _Layout, lines: pa.Table, misfits: _Misfits) -> RawTable:
    if layout.delimiter is None:
        columns = _split_triples(lines.column(0))
        misfits.count += len(lines) - len(columns["user_column"])
    else:
        columns = {flag: lines[str(place)] for flag, place in layout.needed.items()}

    def locate(row: int | None) -> tuple[str, str | None]:
        return _locate(path, layout, row, misfits.count)

    return RawTable.of(columns, misfits.take_new(), locate)


def _split_triples(lines: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    parts = [pc.extract_regex(chunk, _TRIPLE).drop_null() for chunk in lines.chunks]
    return {
        f"{name}_column": pa.chunked_array([part.field(name) for part in parts], pa.binary())
        for name in ("user", "item")
    }


def _locate(path: str, layout: _Layout, row: int | None, misfits: int) -> tuple[str, str | None]:
    fitting = itertools.count()
    with_header = itertools.islice(records(path, layout.delimiter, layout.quoted), layout.header_rows, None)
    for line, fields in with_header:
        if len(fields) != layout.width:
            if misfits:
                return (
                    f"line {line}",
                    f"{len(fields)} fields instead of {layout.width} ({shorten(_shown(fields, layout))})",
                )
        elif next(fitting) == row:
            return f"line {line}", None
    return "a line that could not be found again", "another number of fields than expected" if row is None else None


def _shown(fields: list[str], layout: _Layout) -> bytes:
    return (layout.delimiter or " ").join(fields).encode("latin-1")
