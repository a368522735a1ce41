"""Tables and JSON between the stages of Beam pipelines, as files anywhere and as elements."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from rd_tf.storage import remove

_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
_PLAIN = CompressionTypes.UNCOMPRESSED


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file."""
    with FileSystems.create(path, compression_type=_PLAIN) as file:
        file.write(data)


def read_bytes(path: str) -> bytes:
    """Reads a file."""
    with FileSystems.open(path, compression_type=_PLAIN) as file:
        return file.read()


def write_table(path: str, table: pa.Table) -> None:
    """Writes a table as an Arrow file."""
    with (
        FileSystems.create(path, compression_type=_PLAIN) as file,
        pa.ipc.new_file(file, table.schema, options=_COMPRESSED) as writer,
    ):
        writer.write_table(table)


def read_table(path: str, columns: Sequence[str] = ()) -> pa.Table:
    """Reads an Arrow file, or some of its columns."""
    with FileSystems.open(path, compression_type=_PLAIN) as file:
        reader = pa.ipc.open_file(file)
        if columns:
            fields = [reader.schema.get_field_index(name) for name in columns]
            file.seek(0)
            reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
        return reader.read_all()


def read_json(path: str) -> Any:
    """Reads a JSON file."""
    return json.loads(read_bytes(path))


def remove_tree(directory: str) -> None:
    """Removes a directory with all in it, if it is there."""
    if "://" not in directory:
        remove(Path(directory))
        return
    try:
        # A bucket in a cloud has no directories: Beam takes a name for one where it ends in a stroke.
        FileSystems.delete([f"{directory}/"])
    except BeamIOError as error:
        logging.getLogger(__name__).warning("intermediate files are left in %s: %s", directory, error)


def pack(**columns: np.ndarray | pa.Array) -> bytes:
    """Columns of one length as an element: compressed Arrow, no pickle."""
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpack(elements: Iterable[bytes]) -> pa.Table:
    """Packed tables, one after another, as one; one at least."""
    tables = [pa.ipc.open_stream(element).read_all() for element in elements]
    return pa.concat_tables(tables)


def split(buckets: np.ndarray, **columns: np.ndarray | pa.Array) -> Iterator[tuple[int, bytes]]:
    """Packs the rows of each bucket, in their order.

    Args:
        buckets: `[rows]` whole numbers from 0.
        columns: `[rows]` each.

    Yields:
        `(bucket, packed rows)` of every bucket that has any.
    """
    if not len(buckets):
        return
    order = np.argsort(buckets, kind="stable")
    starts = np.flatnonzero(np.diff(buckets[order], prepend=-1))
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        rows = order[begin:end]
        chosen = {
            name: column[rows] if isinstance(column, np.ndarray) else column.take(pa.array(rows))
            for name, column in columns.items()
        }
        yield int(buckets[rows[0]]), pack(**chosen)


class WriteReport(beam.PTransform):
    """Writes a few small JSON values as one list.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def expand(self, values: beam.PCollection) -> beam.PCollection:
        path = self._path
        return values | beam.combiners.ToList() | beam.Map(lambda found: write_bytes(path, json.dumps(found).encode()))
