"""Opening input files: pipes, compression, Parquet, hashes; and the table of raw columns that every reader gives."""

import bz2
import collections
import contextlib
import dataclasses
import gzip
import hashlib
import io
import lzma
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from rd_tf.storage import InputError


class PipedInput(str):
    """The name of a pipe, whose content was copied: messages show the name, `open_input` opens the copy."""

    copy: str


@contextlib.contextmanager
def piped_inputs_copied(paths: Sequence[str]) -> Iterator[list[str]]:
    """Copies standard input ("-" or /dev/stdin) and named pipes to temporary files, as they can be read only once.

    Args:
        paths: of files and pipes.

    Yields:
        The paths, those of pipes as `PipedInput`; the copies are gone afterwards.

    Raises:
        InputError: a path names a device.
    """
    with contextlib.ExitStack() as stack:
        yield [_copied(path, stack) if is_pipe(path) else path for path in paths]


def is_pipe(path: str) -> bool:
    """Whether a path names standard input or a pipe.

    Raises:
        InputError: it names a device.
    """
    if path == "-":
        return True
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise InputError(f"--input: {path} is a device; name a file, or - for a pipe into this command")
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _copied(path: str, stack: contextlib.ExitStack) -> str:
    copy = stack.enter_context(tempfile.NamedTemporaryFile(prefix="rd_tf-input-"))  # noqa: SIM115
    with readable(path), open(0 if path == "-" else path, "rb", closefd=path != "-") as pipe:
        shutil.copyfileobj(pipe, copy, 1 << 20)
    copy.flush()
    piped = PipedInput(path)
    piped.copy = copy.name
    return piped


def open_input(path: str) -> BinaryIO:
    """Opens a file for reading, one whose name is a URL (gs://..., hdfs://..., s3://...) through Apache Beam.

    Raises:
        InputError: the URL cannot be opened.
        OSError: the local file cannot be opened.
    """
    if "://" not in path:
        return open(getattr(path, "copy", path), "rb")
    try:
        from apache_beam.io.filesystem import BeamIOError, CompressionTypes
        from apache_beam.io.filesystems import FileSystems
    except ImportError:
        raise InputError(f"--input: {path} is read through Apache Beam; pip install -r requirements-beam.txt") from None
    try:
        return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))
    except (BeamIOError, ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--input: {path} cannot be opened ({first}); mend the name or the access to it") from None


def _open_zip(file: BinaryIO, path: str) -> BinaryIO:
    archive = zipfile.ZipFile(file)
    names = [each.filename for each in archive.infolist() if not each.is_dir() and "__MACOSX" not in each.filename]
    if len(names) != 1:
        shown = ", ".join(map(shorten, names[:10]))
        raise InputError(f"--input: {path} holds {len(names)} files ({shown}); unpack it and name those to read")
    return cast(BinaryIO, archive.open(names[0]))


def _open_zstd(file: BinaryIO, path: str) -> BinaryIO:
    return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


# From the ending to a name, the first bytes and how it is undone.
_COMPRESSIONS: dict[str, tuple[str, bytes, Callable[[Any, str], Any]]] = {
    ".gz": ("gzip", b"\x1f\x8b", lambda file, path: gzip.GzipFile(fileobj=file)),
    ".bz2": ("bzip2", b"BZh", lambda file, path: bz2.BZ2File(file)),
    ".xz": ("xz", b"\xfd7zXZ", lambda file, path: lzma.LZMAFile(file)),  # noqa: SIM115
    ".zst": ("zstd", b"\x28\xb5\x2f\xfd", _open_zstd),
    ".zip": ("zip", b"PK\x03\x04", _open_zip),
}


def bare_name(path: str) -> str:
    """A file's name in small letters, without the ending that tells its compression."""
    name = path.lower()
    return next((name.removesuffix(ending) for ending in _COMPRESSIONS if name.endswith(ending)), name)


def open_bytes(path: str) -> BinaryIO:
    """Opens a file for reading; compression is undone where the name's ending or the content's beginning tells it.

    Raises:
        InputError: a zip archive that holds several files or none.
    """
    with open_input(path) as file:
        head = file.read(8)
    compression = _compression(path, head)
    file = open_input(path)
    return cast(BinaryIO, _COMPRESSIONS[compression][2](file, path)) if compression and head else file


def _compression(path: str, head: bytes) -> str | None:
    by_content = (ending for ending, (_, magic, _) in _COMPRESSIONS.items() if head.startswith(magic))
    by_name = (ending for ending in _COMPRESSIONS if path.lower().endswith(ending))
    return next(by_content, next(by_name, None))


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
    # RuntimeError: a zip archive with a password; NotImplementedError: one of a method that Python does not have.
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        RuntimeError,
        OSError,
        pa.ArrowException,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        with open_input(path) as file:
            compression = _compression(path, file.read(8))
        kind = f" {_COMPRESSIONS[compression][0]}" if compression else ""
        raise InputError(f"{path} is a damaged or truncated{kind} file ({error}); fetch or write it again") from None


def input_sha256(input: Sequence[str], format: str, tfds_data_dir: str, tfds_manual_dir: str) -> list[str]:
    """SHA-256 (hex) of every input: of a file's bytes, or with the format "tfds" of the records of a dataset.

    Raises:
        InputError: a dataset is missing and cannot be built.
    """
    if format != "tfds":
        return [file_sha256(path) for path in input]
    # Imports TensorFlow.
    from rd_tf.data.readers.tfds import open_builder, records_sha256

    return [records_sha256(open_builder(name, tfds_data_dir, tfds_manual_dir)) for name in input]


def file_sha256(path: str) -> str:
    """SHA-256 (hex) of one file."""
    with open_input(path) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()


@dataclasses.dataclass
class LineCount:
    """What the lines of a text file are; complete when the file is read.

    Attributes:
        total: lines, as their line ends (LF, CR or CR LF) make them.
        head: of them the header and those that --skip_lines names.
        blank: of the others those without a character.
        continued: those that go on with a field of the line before (--multiline_fields).
    """

    total: int = 0
    head: int = 0
    blank: int = 0
    continued: int = 0

    @property
    def records(self) -> int:
        """Lines that hold a row, usable or not; of item lists those that hold a list."""
        return self.total - self.head - self.blank - self.continued

    def __add__(self, other: "LineCount") -> "LineCount":
        return LineCount(*map(sum, zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclasses.dataclass(frozen=True)
class RawTable:
    """The needed columns of one file or of a piece of it, nothing converted.

    Attributes:
        users: `[rows]` raw user ids.
        items: `[rows]` raw item ids.
        times: `[rows]` raw times; None where the order of the rows is the time.
        misfits: from a reason to the number of rows that were left out of the columns, as they are none; of a piece of
            a file those since the piece before.
        locate: from a row of the file's columns (None: no row, only misfits matter) to the first trouble at or before
            it: the place in words ("line 7") and, if a misfit stands there, what is wrong with it, else None.
        others: from a flag to the raw column `[rows]` that it names, for flags other than these three.
        lines: what the lines of a text file are so far; None of other files.
    """

    users: pa.ChunkedArray
    items: pa.ChunkedArray
    times: pa.ChunkedArray | None
    misfits: dict[str, int]
    locate: Callable[[int | None], tuple[str, str | None]]
    others: dict[str, pa.ChunkedArray] = dataclasses.field(default_factory=dict)
    lines: LineCount | None = None

    @classmethod
    def of(
        cls,
        columns: dict[str, pa.ChunkedArray],
        misfits: dict[str, int],
        locate: Callable[[int | None], tuple[str, str | None]],
        lines: LineCount | None = None,
    ) -> "RawTable":
        """The table of columns by the flags that name them, `user_column`, `item_column` and any others."""
        rest = dict(columns)
        users, items = rest.pop("user_column"), rest.pop("item_column")
        return cls(users, items, rest.pop("time_column", None), misfits, locate, rest, lines)

    @property
    def named(self) -> dict[str, pa.ChunkedArray]:
        """All columns by the flags that name them."""
        times = {} if self.times is None else {"time_column": self.times}
        return {"user_column": self.users, "item_column": self.items, **times, **self.others}

    @classmethod
    def joined(cls, pieces: Sequence["RawTable"]) -> "RawTable":
        """All pieces of a file, one at least, as one table."""
        misfits = collections.Counter[str]()
        for piece in pieces:
            misfits.update(piece.misfits)
        columns = {
            flag: pa.chunked_array([chunk for piece in pieces for chunk in piece.named[flag].chunks], first.type)
            for flag, first in pieces[0].named.items()
        }
        return cls.of(columns, dict(misfits), pieces[-1].locate, pieces[-1].lines)


def shorten(value: Any, limit: int = 60) -> str:
    """A value as a message shows it: its repr, bytes read as UTF-8 where they are, at most `limit` characters."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value[: 4 * limit]
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


# Rows of a piece of a Parquet file.
_PIECE = 2**19


def read_parquet_table(path: str, columns: dict[str, str]) -> RawTable:
    """Reads one Parquet file.

    Args:
        path: the file.
        columns: from the flags `user_column`, `item_column` and any others to column names.

    Raises:
        InputError: the file is missing, damaged, no Parquet file, or lacks a column.
    """
    with _opened(path, columns) as file:
        table = file.read(columns=list(columns.values()))
    return _raw(table, columns)


def read_parquet_pieces(path: str, columns: dict[str, str]) -> Iterator[RawTable]:
    """Reads one Parquet file, some rows at a time; otherwise as `read_parquet_table`.

    Yields:
        One table at least.
    """
    names = list(columns.values())
    with _opened(path, columns) as file:
        if not file.metadata.num_rows:
            yield _raw(file.read(columns=names), columns)
        for batch in file.iter_batches(_PIECE, columns=names):
            yield _raw(pa.Table.from_batches([batch]), columns)


@contextlib.contextmanager
def _opened(path: str, columns: dict[str, str]) -> Iterator[pq.ParquetFile]:
    with readable(path):
        try:
            # Not read_table(): that would take path=value folders on the way for columns.
            with open_input(path) as stream, pq.ParquetFile(stream) as file:
                names = file.schema_arrow.names
                for flag, name in columns.items():
                    if names.count(name) != 1:
                        found = f"has {names.count(name)} columns" if name in names else "has no column"
                        there = ", ".join(map(shorten, names[:20]))
                        raise InputError(f"{path} {found} {name!r}, which --{flag} names; it has {there}")
                yield file
        # Damaged names of columns are no UTF-8.
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            first = str(error).splitlines()[0]
            raise InputError(f"{path} is not a Parquet file or is damaged ({first}); write it again") from None


def _raw(table: pa.Table, columns: dict[str, str]) -> RawTable:
    named = {flag: _plain(table[name]) for flag, name in columns.items()}
    return RawTable.of(named, {}, lambda row: (f"row {(row or 0) + 1}", None))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    # Nobody has checked that text is UTF-8.
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return column.cast(pa.large_binary()) if is_text or pa.types.is_binary_view(kind) else column


def is_parquet(path: str) -> bool:
    """Whether a file is a Parquet file, by its ending or its first bytes."""
    if Path(bare_name(path)).suffix == ".parquet":
        return True
    with readable(path), open_input(path) as file:
        return file.read(4) == b"PAR1"
