"""Operations on item tables: rows gathered with one gradient a row, products with queries, top items in parts."""

import math
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


def partial_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Finds the k highest scores of every row, exactly as `keras.ops.top_k` does, in less time.

    The columns are cut into chunks. The k chunks with the highest maxima hold the k highest scores, and only they are
    sorted through: a chunk that is left out has k chunks before it, each with a score that is higher, or as high and
    further left. The columns after the last whole chunk always take part.

    Args:
        scores: `[batch, columns] float32`, no NaN; a graph may leave the batch open, but not the columns.
        k: 1 .. columns.

    Returns:
        values `[batch, k] float32`, descending, and columns `[batch, k] int32`; of equal scores the one further left
        comes first (PyTorch promises no order of equal scores).
    """
    columns = scores.shape[1]
    # The sum of what both stages sort through, columns / width + k * width, is smallest near sqrt(columns / k); wide
    # chunks are cheaper to reduce and to gather than narrow ones. 14,010 columns: 64 for k = 10, 16 for k = 100.
    width = 2 ** round(math.log2(2 * columns / k) / 2)
    if k * width > columns // 2:
        values, places = ops.top_k(scores, k)
        return values, ops.cast(places, "int32")
    count = columns // width
    whole = count * width
    chunks = ops.reshape(scores[:, :whole], (-1, width))
    highest = ops.reshape(ops.max(chunks, axis=-1), (-1, count))
    # From left to right again, so that of equal scores the one further left still comes first.
    chosen = ops.sort(ops.cast(ops.top_k(highest, k, sorted=False)[1], "int32"), axis=-1)
    row = ops.expand_dims(ops.arange(ops.shape(highest)[0], dtype="int32"), -1)
    candidates = ops.reshape(ops.take(chunks, row * count + chosen, axis=0), (-1, k * width))
    values, places = ops.top_k(ops.concatenate([candidates, scores[:, whole:]], axis=1), k)
    places = ops.cast(places, "int32")
    chunk = ops.take_along_axis(chosen, ops.minimum(places // width, k - 1), axis=1)
    return values, ops.where(places < k * width, chunk * width + places % width, places - k * width + whole)
