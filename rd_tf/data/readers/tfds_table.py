"""Datasets of TensorFlow Datasets as columns."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_datasets as tfds

from rd_tf.data.readers.raw_table import RawTable, shorten
from rd_tf.data.tfds.open_builder import SPLIT
from rd_tf.errors import InputError

# What our builders write into a dataset's metadata.
_SECONDS = "seconds since 1970-01-01 UTC"
# Examples that are parsed in one call; a few hundred bytes each.
_BATCH = 65536
# Batches of a piece.
_PIECE = 8


def read_tfds_table(builder: tfds.core.DatasetBuilder, columns: dict[str, str]) -> RawTable:
    """Reads three features of all examples of the split "train", in the order of the files.

    Records are parsed in batches: `as_dataset` decodes example by example, which took thirty times as long.

    Args:
        builder: of a dataset that is built.
        columns: from the flags `user_column`, `item_column`, `time_column` to names of features.

    Returns:
        Text as bytes, numbers as they are; times as timestamps where the dataset's metadata say that they are seconds
        since 1970, else as they are.

    Raises:
        InputError: a feature is missing or no single value, or the files cannot be read.
    """
    pieces = list(read_tfds_pieces(builder, columns))
    users, items, times = (
        pa.chunked_array([chunk for column in each for chunk in column.chunks], each[0].type)
        for each in zip(*((piece.users, piece.items, piece.times) for piece in pieces), strict=True)
    )
    return RawTable(users, items, times, 0, pieces[0].locate)


def read_tfds_pieces(builder: tfds.core.DatasetBuilder, columns: dict[str, str]) -> Iterator[RawTable]:
    """Reads three features, some examples at a time; otherwise as `read_tfds_table`.

    Yields:
        One table at least.
    """
    info = builder.info
    name = info.full_name
    spec = {column: _parsing(info.features, name, flag, column) for flag, column in columns.items()}
    units = info.metadata.get("units", {}) if isinstance(info.metadata, dict) else {}
    in_seconds = units.get(columns["time_column"]) == _SECONDS
    batches, read = _parsed_batches(builder, spec), 0
    while True:
        chunks: list[dict[str, pa.Array]] = []
        try:
            chunks.extend(itertools.islice(batches, _PIECE))
        # ValueError: what tells the names of the files is damaged.
        except (tf.errors.OpError, OSError, RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise InputError(
                f"{name} in {info.data_dir} cannot be read ({shorten(first, 200)}); build it again"
            ) from None
        users, items, times = (
            pa.chunked_array([chunk[column] for chunk in chunks], _arrow_type(spec[column]))
            for column in columns.values()
        )
        read += len(users)
        examples = info.splits[SPLIT].num_examples
        # A file may have been cut off between two examples.
        if len(chunks) < _PIECE and read != examples:
            raise InputError(f"{name} in {info.data_dir} has {read} examples and not {examples}; build it again")
        if in_seconds:
            times = times.cast(pa.timestamp("s"))
        yield RawTable(users, items, times, 0, lambda row: (f"example {(row or 0) + 1} of {SPLIT}", None))
        if len(chunks) < _PIECE:
            return


def _parsed_batches(
    builder: tfds.core.DatasetBuilder, spec: dict[str, tf.io.FixedLenFeature]
) -> Iterator[dict[str, pa.Array]]:
    for records in _record_batches(builder):
        parsed = tf.io.parse_example(records, spec)
        yield {column: _arrow(values.numpy()) for column, values in parsed.items()}


def _parsing(features: Any, name: str, flag: str, column: str) -> tf.io.FixedLenFeature:
    there = list(features.keys()) if isinstance(features, tfds.features.FeaturesDict) else []
    if column not in there:
        raise InputError(f"{name} has no column {column!r}, which --{flag} names; it has {', '.join(there) or 'none'}")
    stored = features[column].get_serialized_info()
    dtype = np.dtype(stored.np_dtype) if hasattr(stored, "np_dtype") and stored.shape == () else None
    if dtype is None or dtype.kind not in "OSUiuf":
        raise InputError(f"{name}: the column {column!r}, which --{flag} names, holds no single text or number")
    # A record stores text as bytes, whole numbers as int64 and all others as float32.
    kind = {"i": tf.int64, "u": tf.int64, "f": tf.float32}.get(dtype.kind, tf.string)
    return tf.io.FixedLenFeature((), kind)


def _record_batches(builder: tfds.core.DatasetBuilder) -> Iterator[tf.Tensor]:
    """`[at most _BATCH] string`: serialised examples."""
    if builder.info.file_format.value == "tfrecord":
        paths = [str(path) for path in builder.info.splits[SPLIT].filepaths]
        yield from tf.data.TFRecordDataset(paths).batch(_BATCH)
        return
    source = builder.as_data_source(SPLIT, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    for first in range(0, len(source), _BATCH):
        records = source.__getitems__(range(first, min(first + _BATCH, len(source))))
        yield tf.constant([bytes(record) for record in records])


def _arrow(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.binary()) if values.dtype == object else pa.array(values)


def _arrow_type(feature: tf.io.FixedLenFeature) -> pa.DataType:
    return {tf.string: pa.binary(), tf.int64: pa.int64(), tf.float32: pa.float32()}[feature.dtype]
