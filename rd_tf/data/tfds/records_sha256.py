"""What a dataset of TensorFlow Datasets holds, as one number."""

import hashlib

import tensorflow_datasets as tfds

from rd_tf.data.tfds.open_builder import SPLIT


def records_sha256(builder: tfds.core.DatasetBuilder) -> str:
    """SHA-256 (hex) of the files of the split "train", one after another: another build of other data has another."""
    digest = hashlib.sha256()
    for path in builder.info.splits[SPLIT].filepaths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
