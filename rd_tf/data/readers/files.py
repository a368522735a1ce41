"""Opening input files, hashing them, and the table of raw columns that every reader gives."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, cast

import pyarrow as pa

from rd_tf.storage import InputError


def open_input(path: str) -> BinaryIO:
    """Opens a file for reading, one whose name is a URL (gs://..., hdfs://..., s3://...) through Apache Beam.

    Raises:
        InputError: the URL cannot be opened.
        OSError: the local file cannot be opened.
    """
    if "://" not in path:
        return open(path, "rb")
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


@dataclasses.dataclass(frozen=True)
class RawTable:
    """The needed columns of one file or of a piece of it, nothing converted.

    Attributes:
        users: `[rows]` raw user ids.
        items: `[rows]` raw item ids.
        times: `[rows]` raw times; None where the order of the rows is the time.
        misfits: rows that were left out of the columns because they have another number of fields; of a piece of a file
            those since the piece before.
        locate: from a row of the file's columns (None: no row, only misfits matter) to the first trouble at or before
            it: the place in words ("line 7") and, if a misfit stands there, what is wrong with it, else None.
        others: from a flag to the raw column `[rows]` that it names, for flags other than these three.
    """

    users: pa.ChunkedArray
    items: pa.ChunkedArray
    times: pa.ChunkedArray | None
    misfits: int
    locate: Callable[[int | None], tuple[str, str | None]]
    others: dict[str, pa.ChunkedArray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        columns: dict[str, pa.ChunkedArray],
        misfits: int,
        locate: Callable[[int | None], tuple[str, str | None]],
    ) -> "RawTable":
        """The table of columns by the flags that name them, `user_column`, `item_column` and any others."""
        rest = dict(columns)
        users, items = rest.pop("user_column"), rest.pop("item_column")
        return cls(users, items, rest.pop("time_column", None), misfits, locate, rest)


def shorten(value: Any, limit: int = 60) -> str:
    """A value as a message shows it: its repr, bytes read as UTF-8 where they are, at most `limit` characters."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value[: 4 * limit]
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
