"""The history of one query on a device."""

from typing import Any

import tensorflow as tf

Tensor = Any


class PaddedHistory:
    """What `Histories` is, for one query whose items may be padded anywhere.

    Args:
        items: `[1, n] int32`, 0 = none.
    """

    def __init__(self, items: Tensor) -> None:
        self.items = items

    def sum(self, values: Tensor, queries: Any) -> Tensor:
        """Sums `[1, n, d] float32` over the items: `[1, d]`."""
        return tf.reduce_sum(values * self._is_item()[..., tf.newaxis], axis=1)

    def lengths(self, queries: Any) -> Tensor:
        """Number of items: `[1, 1] float32`."""
        return tf.reduce_sum(self._is_item(), axis=1, keepdims=True)

    def _is_item(self) -> Tensor:
        return tf.cast(self.items > 0, tf.float32)
