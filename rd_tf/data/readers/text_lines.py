"""Text files, plain or gzip: opening them, and finding a record's line."""

import contextlib
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal, cast

from rd_tf.data.readers.open_input import open_input
from rd_tf.errors import InputError

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
