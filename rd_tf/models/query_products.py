"""Queries times the rows of an embedding table."""

from typing import Any

import keras
from keras import ops

Tensor = Any


def query_products(query: Tensor, table: Any, first: int | Tensor = 0, size: int | None = None) -> Tensor:
    """Multiplies queries by all rows of a table, or by some neighbouring ones.

    Args:
        query: `[batch, q] float32`.
        table: `[rows, q] float32`; or what stores such a table in fewer bytes and has `query_products` of its own.
        first: the first row, where `size` is given.
        size: how many rows; None takes all.

    Returns:
        `[batch, size] float32`.
    """
    if not isinstance(table, keras.Variable):
        return table.query_products(query, first, size)
    rows = ops.convert_to_tensor(table)
    if size is not None:
        rows = ops.slice(rows, (first, 0), (size, rows.shape[1]))
    return ops.matmul(query, ops.transpose(rows))
