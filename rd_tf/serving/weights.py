"""A ranker's weights as an export stores them: in few bytes, of the served items, with an unknown user."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from rd_tf.data.dataset import write_lines
from rd_tf.models.ranker import SequenceRanker
from rd_tf.storage import InputError

# Of int8 tables: the largest level, the number of scales, and how many scales lie between one and its double.
_LARGEST, _CODES, _CODES_PER_DOUBLE = 127, 256, 16
TABLE_FILE, IDS_FILE = "item_table.npy", "item_ids.txt"


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
        # Scaling the products is a pass over batch x rows numbers, in place of one over the whole table.
        return products * self._scale(tf.convert_to_tensor(codes))

    def _read(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._values)

    def _scale(self, codes: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.convert_to_tensor(self._scales), tf.cast(codes, tf.int32))


class StoredRanker(tf.Module):
    """A ranker for a graph, with the variables that the graph keeps.

    Tables with a row per user or item are stored as `weights` says. All other weights, item biases among them, are
    stored as float16 unless `weights` is float32: a byte a number does only for rows with a scale. Every table is a
    `CompactTable`, in float32 too: it alone reads rows so that the whole table is never copied.

    Args:
        model: the ranker; it is left as it is.
        weights: "float32", "float16" or "int8".
        others: "float16" or "float32", how all but the tables are stored where `weights` is not float32.

    Attributes:
        ranker: a copy that reads the stored weights; it scores as it is, and encodes inside `dense_weights_in_use`.

    Raises:
        InputError: a weight is larger than float16 holds.
    """

    def __init__(self, model: SequenceRanker, weights: str, others: str = "float16") -> None:
        super().__init__()
        # tf.Module would track a Keras model, and save it with all its float32 weights.
        self._untracked = _Untracked(copy_ranker(model))
        ranker = self.ranker
        attributes = {id(value): name for name, value in vars(ranker).items() if has_row_a_user_or_item(value)}
        # These hold variables of TensorFlow's own: tensorflow_model_server does not find those in Keras' wrappers.
        self._kept: list[CompactTable] = []
        for weight in ranker.trainable_weights:
            if id(weight) not in attributes:
                self._untracked.dense.append(weight)
            else:
                kind = weights if is_table(weight) or weights == "float32" else others
                table = CompactTable(keras.ops.convert_to_numpy(weight), kind)
                setattr(ranker, attributes[id(weight)], table)
                self._kept.append(table)
        # All dense weights are one variable, since every variable takes several hundred bytes of graph.
        values = [keras.ops.convert_to_numpy(weight).ravel() for weight in self._untracked.dense]
        packed = np.concatenate([np.zeros(0, np.float32), *values])
        is_half = weights != "float32" and others == "float16"
        self._dense = tf.Variable(to_half(packed) if is_half else packed, trainable=False)

    @property
    def ranker(self) -> SequenceRanker:
        return self._untracked.ranker

    @contextlib.contextmanager
    def dense_weights_in_use(self) -> Iterator[SequenceRanker]:
        """Within it the ranker, which is given, can `encode`; to be entered while tracing."""
        dense = self._untracked.dense
        sizes = [math.prod(weight.shape) for weight in dense]
        # A ranker may have tables only, and nothing cannot be split.
        parts = tf.split(tf.cast(self._dense, tf.float32), sizes) if sizes else []
        mapping = [(weight, tf.reshape(part, weight.shape)) for weight, part in zip(dense, parts, strict=True)]
        with keras.StatelessScope(state_mapping=mapping):
            yield self.ranker


class _Untracked:
    def __init__(self, ranker: SequenceRanker) -> None:
        self.ranker = ranker
        self.dense: list[keras.Variable] = []


def has_row_a_user_or_item(value: object) -> bool:
    """Whether it is a variable with a row, or a number, for every user or item."""
    return isinstance(value, keras.Variable) and getattr(value, "row_sparse", False)


def is_table(weight: keras.Variable) -> bool:
    """Whether it is a variable with a row of several numbers for every user or item."""
    return has_row_a_user_or_item(weight) and len(weight.shape) == 2


def copy_ranker(model: SequenceRanker, dtype: str | None = None) -> SequenceRanker:
    """A ranker of its own variables with the same weights, under another dtype policy if one is given."""
    config = model.get_config()
    copy = type(model).from_config({**config, "dtype": dtype} if dtype else config)
    for old, new in zip(model.weights, copy.weights, strict=True):
        new.assign(old)
    return copy


def rounded_copy(model: SequenceRanker, weights: str) -> SequenceRanker:
    """A float32 ranker with the weights that an export of `weights` gives back, to evaluate and to compare with.

    Raises:
        InputError: a weight is larger than float16 holds.
    """
    copy = copy_ranker(model)
    if weights == "float32":
        return copy
    for weight in copy.trainable_weights:
        value: np.ndarray = keras.ops.convert_to_numpy(weight)
        weight.assign(rounded(value, weights if is_table(weight) else "float16"))
    return copy


def with_items(model: SequenceRanker, items: np.ndarray) -> SequenceRanker:
    """A ranker of some items alone, numbered from 1 in the order given; the ranker itself where these are all.

    Args:
        model: of the whole catalogue.
        items: `[n] int32`, the items' numbers, ascending.
    """
    if len(items) == model.num_items:
        return model
    smaller = type(model).from_config({**model.get_config(), "num_items": len(items)})
    rows = np.concatenate([[0], items])
    for old, new in zip(model.weights, smaller.weights, strict=True):
        value = keras.ops.convert_to_numpy(old)
        new.assign(value[rows] if getattr(old, "row_an_item", False) else value)
    return smaller


def put_back(whole: SequenceRanker, part: SequenceRanker, items: np.ndarray) -> SequenceRanker:
    """A copy of a ranker with the weights of another one, which ranks some of its items alone (`with_items`).

    Args:
        whole: of the whole catalogue; what the other one lacks stays as it is here.
        part: of the items, whose weights are taken.
        items: `[n] int32`, their numbers in `whole`, ascending.
    """
    copy = copy_ranker(whole)
    rows = np.concatenate([[0], items])
    for old, new in zip(part.weights, copy.weights, strict=True):
        value = keras.ops.convert_to_numpy(old)
        if getattr(new, "row_an_item", False):
            every = keras.ops.convert_to_numpy(new).copy()
            every[rows] = value
            value = every
        new.assign(value)
    return copy


def with_unknown_user(model: SequenceRanker) -> SequenceRanker:
    """Copies a ranker; the copy has a row for users who were never seen, number `num_users`.

    It is the row that was trained for them. Where none was, every weight with a row per user gets the ranker's
    `unknown_user_row` appended. All others are copied, so that the scores of known users stay what they were.
    """
    wider = type(model).from_config({**model.get_config(), "unknown_user": True})
    for old, new in zip(model.weights, wider.weights, strict=True):
        value = keras.ops.convert_to_numpy(old)
        if tuple(old.shape) != tuple(new.shape):
            value = np.concatenate([value, model.unknown_user_row(value)])
        new.assign(value)
    return wider


def item_vectors(ranker: SequenceRanker) -> np.ndarray:
    """`[num_items, q + 1] float32`: row i - 1 is the vector of item i and, last, its bias.

    The inner product with a query, to which a 1 is appended, is the item's score.
    """
    table, bias = (keras.ops.convert_to_numpy(weight) for weight in (ranker.item_table, ranker.item_bias))
    return np.concatenate([table, bias[:, None]], axis=1)[1:]


def write_item_table(directory: str | os.PathLike[str], ranker: SequenceRanker, item_ids: Sequence[str]) -> None:
    """Writes `item_table.npy`, the `item_vectors`, and `item_ids.txt`, the raw id of every row's item."""
    Path(directory).mkdir(exist_ok=True)
    np.save(Path(directory) / TABLE_FILE, item_vectors(ranker))
    write_lines(Path(directory) / IDS_FILE, item_ids)
