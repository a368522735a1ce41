"""Datasets of TensorFlow Datasets as check-ins."""

import contextlib
import errno
import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from rd_tf.data.readers.files import RawTable, shorten
from rd_tf.data.tfds.foursquare_checkins.foursquare_checkins_dataset_builder import Builder as FoursquareCheckins
from rd_tf.data.tfds.gowalla.gowalla_dataset_builder import Builder as Gowalla
from rd_tf.storage import InputError


def describe_builder(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """The dataset's name, config, version and split."""
    return {
        "builder": builder.name,
        "config": builder.info.config_name or "",
        "version": str(builder.version),
        "split": SPLIT,
    }


SPLIT = "train"
# TensorFlow Datasets knows a builder by name once its class is defined.
OUR_BUILDERS = (FoursquareCheckins, Gowalla)
_NAME = re.compile(r"\w+(/[\w.-]+)?(:\d+\.\d+\.\d+)?")


def open_builder(name: str, data_dir: str, manual_dir: str) -> tfds.core.DatasetBuilder:
    """Finds a dataset, and builds it if it is not there and its files are.

    Args:
        name: "dataset", "dataset/config" or either with ":version", as TensorFlow Datasets names it.
        data_dir: where built datasets lie; empty: TensorFlow Datasets' own folder.
        manual_dir: the files to build it from; empty: build nothing.

    Returns:
        A builder whose data are on disk and have a split "train".

    Raises:
        InputError: an unknown dataset, version or config; it is not built and cannot be; it has no split "train".
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--input={name} is not a dataset's name, such as gowalla, gowalla:1.0.0 or movielens/1m-ratings"
        )
    # What is built now may go into a folder that is not there yet.
    needed = {"tfds_manual_dir": manual_dir} if manual_dir else {"tfds_data_dir": data_dir}
    for flag, folder in needed.items():
        if folder and not tfds.core.Path(folder).expanduser().is_dir():
            raise InputError(f"--{flag}={folder} is not a directory; name the one that holds the data")
    with _only_errors_logged():
        builder = _find(name, data_dir)
        if not builder.is_prepared():
            _build(builder, name, manual_dir)
    if SPLIT not in builder.info.splits:
        there = ", ".join(builder.info.splits) or "none"
        raise InputError(f"--input={name} has no split {SPLIT!r} (its splits: {there}); name another dataset")
    return builder


def _find(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        raise InputError(
            f"--input={name}: TensorFlow Datasets knows no such dataset, and none lies in {_folder(data_dir)};"
            " correct the name or --tfds_data_dir"
        ) from None
    except Exception as error:  # A version or a config that does not exist, or any damage to the files that tell of it.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise InputError(
            f"--input={name} cannot be used ({_reason(error)}); name another version or config, or build it again"
        ) from None


def _build(builder: tfds.core.DatasetBuilder, name: str, manual_dir: str) -> None:
    if not manual_dir:
        raise InputError(
            f"--input={name} is not built in {builder.data_dir_root}; name the folder it lies in with --tfds_data_dir,"
            " name the folder of its files with --tfds_manual_dir to build it now, or build it with TensorFlow Datasets"
        )
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # A builder may raise anything: a file is missing or wrong, or a server is away.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise InputError(
            f"--input={name} cannot be built from --tfds_manual_dir={manual_dir} ({_reason(error)}); mend its files"
        ) from error


@contextlib.contextmanager
def _only_errors_logged() -> Iterator[None]:
    # TensorFlow Datasets warns of every folder that it looks into in vain.
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _folder(data_dir: str) -> str:
    return data_dir or str(tfds.core.constants.DATA_DIR)


def _reason(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    # What TensorFlow Datasets puts before the message repeats the builder's arguments.
    return first.rpartition('}": ')[2].rstrip(".")


def records_sha256(builder: tfds.core.DatasetBuilder) -> str:
    """SHA-256 (hex) of the files of the split "train", one after another: another build of other data has another."""
    digest = hashlib.sha256()
    for path in builder.info.splits[SPLIT].filepaths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# What our builders write into a dataset's metadata.
_SECONDS = "seconds since 1970-01-01 UTC"
# Examples that are parsed in one call; a few hundred bytes each.
_BATCH = 65536
# Batches of a piece.
_PIECE = 8


def read_tfds_table(builder: tfds.core.DatasetBuilder, columns: dict[str, str]) -> RawTable:
    """Reads some features of all examples of the split "train", in the order of the files.

    Records are parsed in batches: `as_dataset` decodes example by example, which took thirty times as long.

    Args:
        builder: of a dataset that is built.
        columns: from the flags `user_column`, `item_column`, `time_column` and any others to names of features.

    Returns:
        Text as bytes, numbers as they are; times as timestamps where the dataset's metadata say that they are seconds
        since 1970, else as they are.

    Raises:
        InputError: a feature is missing or no single value, or the files cannot be read.
    """
    return RawTable.joined(list(read_tfds_pieces(builder, columns)))


def read_tfds_pieces(builder: tfds.core.DatasetBuilder, columns: dict[str, str]) -> Iterator[RawTable]:
    """Reads some features, some examples at a time; otherwise as `read_tfds_table`.

    Yields:
        One table at least.
    """
    info = builder.info
    name, columns = info.full_name, {flag: column for flag, column in columns.items() if column}
    spec = {column: _parsing(info.features, name, flag, column) for flag, column in columns.items()}
    units = info.metadata.get("units", {}) if isinstance(info.metadata, dict) else {}
    in_seconds = units.get(columns.get("time_column")) == _SECONDS
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
        named = {
            flag: pa.chunked_array([chunk[column] for chunk in chunks], _arrow_type(spec[column]))
            for flag, column in columns.items()
        }
        read += len(named["user_column"])
        examples = info.splits[SPLIT].num_examples
        # A file may have been cut off between two examples.
        if len(chunks) < _PIECE and read != examples:
            raise InputError(f"{name} in {info.data_dir} has {read} examples and not {examples}; build it again")
        if in_seconds:
            named["time_column"] = named["time_column"].cast(pa.timestamp("s"))
        yield RawTable.of(named, {}, lambda row: (f"example {(row or 0) + 1} of {SPLIT}", None))
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
