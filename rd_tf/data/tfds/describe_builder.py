"""What a manifest tells of a dataset of TensorFlow Datasets."""

from typing import Any

import tensorflow_datasets as tfds

from rd_tf.data.tfds.open_builder import SPLIT


def describe_builder(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """The dataset's name, config, version and split."""
    return {
        "builder": builder.name,
        "config": builder.info.config_name or "",
        "version": str(builder.version),
        "split": SPLIT,
    }
