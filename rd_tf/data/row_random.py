"""Random numbers that belong to the rows of a global batch, whoever draws them."""

import tensorflow as tf

_PHILOX = 1
# Numbers of 32 bits that the generator gives for one value of its counter.
_AT_ONCE = 4


def uniform_rows(seed: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, count: int) -> tf.Tensor:
    """Numbers in [0, 1) for some rows of a batch.

    Row r has the same numbers whichever rows are asked for, so that replicas draw for their own rows only, and together
    what one device would draw.

    Args:
        seed: `[2] int32`.
        first: `[]` integer, number of the first row.
        rows: `[]` integer, number of rows.
        count: numbers a row.

    Returns:
        `[rows, count] float32`.
    """
    return _rows(tf.raw_ops.StatelessRandomUniformV2, tf.float32, seed, first, rows, count)


def bit_rows(seed: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, count: int) -> tf.Tensor:
    """As `uniform_rows`, but `[rows, count] int32`, all 32 bits of them random."""
    return _rows(tf.raw_ops.StatelessRandomUniformFullIntV2, tf.int32, seed, first, rows, count)


def _rows(
    operation: "tf.Operation", dtype: tf.DType, seed: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, count: int
) -> tf.Tensor:
    # Every row begins with a counter of its own.
    counters = -(-count // _AT_ONCE)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    skipped = tf.cast(tf.cast(first, tf.int64) * counters, tf.uint64)
    shape = tf.stack([tf.cast(rows, tf.int32), counters * _AT_ONCE])
    drawn = operation(shape=shape, key=key, counter=counter + tf.stack([skipped, 0]), alg=_PHILOX, dtype=dtype)
    return drawn[:, :count]
