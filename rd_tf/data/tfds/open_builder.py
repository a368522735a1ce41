"""Datasets of TensorFlow Datasets by name, built and ready to read."""

import contextlib
import errno
import re
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging

import rd_tf.data.tfds.builders  # noqa: F401  (Makes our own datasets known.)
from rd_tf.errors import InputError

SPLIT = "train"
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
