"""Rows of an embedding table."""

from typing import Any

import keras
from keras import ops

Tensor = Any


def take_rows(table: Any, rows: Tensor) -> Tensor:
    """Gathers rows of a table, at a cost that does not grow with the table.

    Args:
        table: `[rows, ...] float32`; or what stores such a table in fewer bytes and has a `take_rows` of its own.
        rows: `int32` of any shape.

    Returns:
        `rows.shape + table.shape[1:] float32`.
    """
    if not isinstance(table, keras.Variable):
        return table.take_rows(rows)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # From the variable itself: `ops.take` reads the variable as a tensor first, and TensorFlow copies the whole of
        # it for every such reading once rows of it have been updated in place.
        return tf.gather(table.value, rows)
    return ops.take(table, rows, axis=0)
