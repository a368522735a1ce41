"""A ranker whose weights are stored in few bytes and which computes in float32."""

import contextlib
import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.compact_table import CompactTable, rounded, to_half


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
        # A Keras model as a tracked attribute would be saved with all its float32 weights.
        self._untracked = _Untracked(copy_ranker(model))
        ranker = self.ranker
        attributes = {id(value): name for name, value in vars(ranker).items() if has_row_a_user_or_item(value)}
        # Of TensorFlow's variables: under Keras' wrappers tensorflow_model_server does not find them.
        self._kept: list[CompactTable] = []
        for weight in ranker.trainable_weights:
            if id(weight) not in attributes:
                self._untracked.dense.append(weight)
            else:
                kind = weights if is_table(weight) or weights == "float32" else others
                table = CompactTable(keras.ops.convert_to_numpy(weight), kind)
                setattr(ranker, attributes[id(weight)], table)
                self._kept.append(table)
        # One variable for all dense weights: every variable is several hundred bytes of graph.
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
        parts = tf.split(tf.cast(self._dense, tf.float32), [math.prod(weight.shape) for weight in dense])
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
