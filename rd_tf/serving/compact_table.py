"""An embedding table in fewer bytes than float32 takes."""

import numpy as np
import tensorflow as tf

from rd_tf.storage import InputError

_LARGEST = 127
# Scales of a table: 256 of them, 16 between one and its double.
_CODES, _CODES_PER_DOUBLE = 256, 16


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rounds every row to 255 levels of a scale of its own.

    A value w is stored as round(w / scale). A row whose largest magnitude is m needs a scale of m / 127 or more; it
    gets the next of 256 scales that the table has, from the largest that a row needs down to 2^-16 of it in steps of
    4.4 %. So a scale takes a byte, nothing is clipped, and a value is off by half a scale at most.

    Args:
        table: `[rows, d] float32`, finite.

    Returns:
        levels `[rows, d] int8` from -127 to 127, codes `[rows] uint8` and scales `[256] float32`: row r of the table
        is about `levels[r] * scales[codes[r]]`.
    """
    needed = np.abs(table).max(axis=1, initial=0.0) / np.float32(_LARGEST)
    largest = needed.max(initial=0.0)
    scales = (largest * 2.0 ** (-np.arange(_CODES) / _CODES_PER_DOUBLE)).astype(np.float32)
    codes = np.searchsorted(-scales, -needed, side="right") - 1
    by_row = np.where(scales[codes] > 0, scales[codes], np.float32(1))
    return np.rint(table / by_row[:, None]).astype(np.int8), codes.astype(np.uint8), scales


def rounded(value: np.ndarray, weights: str) -> np.ndarray:
    """A weight as an export gives it back: `float32` of the same shape.

    Args:
        value: `float32`; `[rows, d]` with int8.
        weights: "float32", "float16" or "int8".

    Raises:
        InputError: a number is larger than float16 holds.
    """
    if weights == "float32":
        return value
    if weights == "float16":
        return to_half(value).astype(np.float32)
    levels, codes, scales = quantize_rows(value)
    return levels.astype(np.float32) * scales[codes][:, None]


def to_half(value: np.ndarray) -> np.ndarray:
    """A weight in float16.

    Raises:
        InputError: a number is larger than float16 holds.
    """
    if np.abs(value).max(initial=0.0) >= 65504:
        raise InputError("a weight of the model is larger than float16 holds, 65504; export with --weights=float32")
    return value.astype(np.float16)


class CompactTable(tf.Module):
    """A table `[rows, d]` or biases `[rows]` in few bytes, computing in float32.

    They are stored as float32 or float16, or as int8 with a scale a row (`quantize_rows`).

    Rows are gathered from the variable as it was read, never from the variable itself: one gather of that kind makes
    TensorFlow copy the whole table for every later read of it, 0.25 GB a request for a million items of 64 numbers.

    Args:
        table: `[rows, d]` or `[rows] float32`.
        weights: "float32", "float16" or, for a table, "int8".

    Raises:
        InputError: a number is larger than float16 holds.
    """

    def __init__(self, table: np.ndarray, weights: str) -> None:
        super().__init__()
        self.shape = table.shape
        self._codes: tf.Variable | None = None
        if weights == "int8":
            values, codes, scales = quantize_rows(table)
            self._codes = tf.Variable(codes, trainable=False)
            self._scales = tf.Variable(scales, trainable=False)
        else:
            values = to_half(table) if weights == "float16" else table
        self._values = tf.Variable(values, trainable=False)

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        values = tf.cast(self._read(), tf.float32)
        if self._codes is None:
            return values
        return values * tf.expand_dims(self._scale(tf.convert_to_tensor(self._codes)), -1)

    def take_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """Gathers rows: `rows.shape + shape[1:] float32`."""
        values = tf.cast(tf.gather(self._read(), rows), tf.float32)
        if self._codes is None:
            return values
        codes = tf.gather(tf.convert_to_tensor(self._codes), rows)
        return values * tf.expand_dims(self._scale(codes), -1)

    def query_products(self, query: tf.Tensor, first: int | tf.Tensor, size: int | None) -> tf.Tensor:
        """Multiplies queries `[batch, d] float32` by rows, all or `first ..`: `[batch, size] float32`."""
        values, codes = self._read(), self._codes
        if size is not None:
            values = tf.slice(values, [first, 0], [size, self.shape[1]])
            codes = None if codes is None else tf.slice(tf.convert_to_tensor(codes), [first], [size])
        products = tf.matmul(query, tf.cast(values, tf.float32), transpose_b=True)
        if codes is None:
            return products
        # Behind the product: a pass over batch x rows numbers in place of one over the whole table.
        return products * self._scale(tf.convert_to_tensor(codes))

    def _read(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._values)

    def _scale(self, codes: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.convert_to_tensor(self._scales), tf.cast(codes, tf.int32))
