"""What the input held, to notice later that it holds something else."""

import hashlib
import io
from collections.abc import Sequence
from typing import cast

from rd_tf.data.readers.open_input import open_input


def input_sha256(input: Sequence[str], format: str, tfds_data_dir: str, tfds_manual_dir: str) -> list[str]:
    """SHA-256 (hex) of every input: of a file's bytes, or with the format "tfds" of the records of a dataset.

    Raises:
        InputError: a dataset is missing and cannot be built.
    """
    if format != "tfds":
        return [file_sha256(path) for path in input]
    # Imports TensorFlow.
    from rd_tf.data.tfds.open_builder import open_builder
    from rd_tf.data.tfds.records_sha256 import records_sha256

    return [records_sha256(open_builder(name, tfds_data_dir, tfds_manual_dir)) for name in input]


def file_sha256(path: str) -> str:
    """SHA-256 (hex) of one file."""
    with open_input(path) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
