"""Items that queries look back on, any number a query, without padding."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any


class Histories(NamedTuple):
    """The histories of a batch of queries, one after another.

    Attributes:
        items: `[n] int32`, no padding.
        rows: `[n] int32`, ascending: the query that an item belongs to.
    """

    items: Tensor
    rows: Tensor

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor]) -> "Histories | None":
        """Those of a batch, `history_items` and `history_rows`; None where it has none."""
        return cls(inputs["history_items"], inputs["history_rows"]) if "history_items" in inputs else None

    def sum(self, values: Tensor, queries: int | Tensor) -> Tensor:
        """Sums values over every query's items.

        Args:
            values: `[n, d] float32`, one row an item.
            queries: number of queries; one without items gets zeros.

        Returns:
            `[queries, d] float32`.
        """
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Keras' own is TensorFlow's sum of unsorted segments, whose gradient is four passes in place of one gather.
            sums = tf.math.segment_sum(values, self.rows)
            return tf.ensure_shape(tf.pad(sums, [[0, queries - tf.shape(sums)[0]], [0, 0]]), [None, values.shape[1]])
        return ops.segment_sum(values, self.rows, queries)

    def lengths(self, queries: int | Tensor) -> Tensor:
        """Number of items of every query: `[queries, 1] float32`."""
        return self.sum(ops.ones((ops.shape(self.rows)[0], 1)), queries)
