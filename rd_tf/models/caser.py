"""Activations by the names of the command line."""

import itertools
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from rd_tf.models.ranker import Histories, SequenceRanker, Tensor, take_rows
from rd_tf.plugins import register_ranker

# 0.01 is what the authors' code used; Keras' own default is 0.2.
LEAKY_SLOPE = 0.01
PRELU_START = 0.25
# The matrix of bands has L^3 n_h d / 2 numbers, most of them 0: at L = 20 a step takes 5 times as long with it, and at
# L = 200 it is beyond memory. At L = 5 one product is no slower than five convolutions.
_LONGEST_IN_BANDS = 8


def make_activation(name: str, dtype: Any = None) -> keras.layers.Layer:
    """Makes an activation layer.

    Args:
        name: "identity", "relu", "leaky_relu" (slope 0.01), "prelu" (one learned slope, 0.25 at first), "tanh" or
            "sigmoid".
        dtype: the layer's dtype policy.

    Raises:
        ValueError: another name.
    """
    if name == "leaky_relu":
        return keras.layers.LeakyReLU(LEAKY_SLOPE, dtype=dtype)
    if name == "prelu":
        return OneSlopePReLU(dtype=dtype)
    plain = {"identity": "linear", "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid"}
    if name not in plain:
        raise ValueError(f"activation must be one of {', '.join([*plain, 'leaky_relu', 'prelu'])}; received {name!r}")
    return keras.layers.Activation(plain[name], dtype=dtype)


class OneSlopePReLU(keras.layers.Layer):
    """max(0, x) + slope * min(0, x) with one learned slope, whatever the input's shape."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.slope = self.add_weight(shape=(), initializer=keras.initializers.Constant(PRELU_START), name="slope")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.maximum(inputs, 0) + self.slope * keras.ops.minimum(inputs, 0)


@register_ranker("caser")
class Caser(SequenceRanker):
    """Reads the L recent items as an image `[L, d]` with vertical and horizontal filters.

    query = [phi_a(W dropout([vertical, horizontal]) + b), user embedding], so q = 2 d. A vertical filter is a weighted
    sum over the L items; a horizontal filter of height h slides over h adjacent items and is max-pooled.
    Source: Tang & Wang, WSDM 2018, equations 2-10.

    Args:
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.
        sequence_length: L, recent items of a query.
        dim: d, embedding dimension.
        vertical_filters: n_v.
        horizontal_filters: n_h, of every height 1 .. L.
        conv_activation: phi_c, after the horizontal filters.
        dense_activation: phi_a, after the dense layer.
        dropout: share of the dense layer's inputs dropped in training, in [0, 1).
        seed: of the initial weights and of dropout.
        unknown_user: whether there is a row for users who were not seen.

    Raises:
        ValueError: a size out of range, no filters at all, or an unknown activation.
    """

    config_attributes = MappingProxyType(
        {
            "conv_activation": "conv_activation_name",
            "dense_activation": "dense_activation_name",
            "dropout": "dropout_rate",
        }
    )

    def __init__(
        self,
        num_users: int,
        num_items: int,
        sequence_length: int = 5,
        dim: int = 50,
        vertical_filters: int = 2,
        horizontal_filters: int = 16,
        conv_activation: str = "identity",
        dense_activation: str = "sigmoid",
        dropout: float = 0.5,
        seed: int = 0,
        unknown_user: bool = False,
        **kwargs: Any,
    ) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1; received {dim}")
        super().__init__(num_users, num_items, sequence_length, 2 * dim, seed, unknown_user, **kwargs)
        if min(vertical_filters, horizontal_filters) < 0 or vertical_filters + horizontal_filters == 0:
            raise ValueError(
                "Caser needs vertical or horizontal filters; "
                f"received vertical_filters={vertical_filters}, horizontal_filters={horizontal_filters}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); received {dropout}")
        self.dim = dim
        self.vertical_filters = vertical_filters
        self.horizontal_filters = horizontal_filters
        self.conv_activation_name = conv_activation
        self.dense_activation_name = dense_activation
        self.dropout_rate = dropout
        heights = range(1, sequence_length + 1)
        self.conv_activations = [self._activation(conv_activation, f"conv_activation_{height}") for height in heights]
        self.dense_activation = self._activation(dense_activation, "dense_activation")
        self.dropout = self.make_dropout(dropout)
        self.build_weights()

    def build_weights(self) -> None:
        length, dim = self.sequence_length, self.dim
        self.user_table = self.add_table("user_table", self.user_rows, dim, 2)
        self.sequence_table = self.add_table("sequence_table", self.num_items + 1, dim, 3, of_items=True)
        if self.vertical_filters:
            self.vertical_kernel = self._add_uniform("vertical_kernel", (length, self.vertical_filters), length, 4)
            self.vertical_bias = self._add_uniform("vertical_bias", (self.vertical_filters,), length, 5)
        self.horizontal_kernels, self.horizontal_biases = [], []
        for height in range(1, length + 1) if self.horizontal_filters else ():
            fan_in, shape = height * dim, (height * dim, self.horizontal_filters)
            kernel = self._add_uniform(f"horizontal_kernel_{height}", shape, fan_in, 10 + 2 * height)
            bias = self._add_uniform(f"horizontal_bias_{height}", shape[1:], fan_in, 11 + 2 * height)
            self.horizontal_kernels.append(kernel)
            self.horizontal_biases.append(bias)
        dense_inputs = self.vertical_filters * dim + self.horizontal_filters * length
        self.noise_width = dense_inputs
        self.dense_kernel = self._add_uniform("dense_kernel", (dense_inputs, dim), dense_inputs, 6)
        self.dense_bias = self._add_uniform("dense_bias", (dim,), dense_inputs, 7)
        self.build_item_table()
        for activation in (*self.conv_activations, self.dense_activation):
            activation.build((None, dim))
        self.built = True

    def _activation(self, kind: str, name: str) -> keras.layers.Layer:
        activation = make_activation(kind, self.dtype_policy)
        # Its own one counts the layers that the process has made.
        activation.name = name
        return activation

    def _add_uniform(self, name: str, shape: tuple[int, ...], fan_in: int, seed_offset: int) -> keras.Variable:
        # U(-1/sqrt(fan_in), 1/sqrt(fan_in)) is what the authors' framework gives convolutions and dense layers.
        limit = fan_in**-0.5
        initializer = keras.initializers.RandomUniform(-limit, limit, seed=self.seed * 1000 + seed_offset)
        return self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False)

    def encode(
        self,
        user: Tensor,
        sequence: Tensor,
        training: bool = False,
        history: Histories | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        image = ops.cast(take_rows(self.sequence_table, sequence), self.compute_dtype)
        parts = []
        if self.vertical_filters:
            parts.append(self._vertical(image))
        if self.horizontal_filters:
            is_short = self.sequence_length <= _LONGEST_IN_BANDS
            parts.append(self._horizontal_in_bands(image) if is_short else self._horizontal(image))
        features = ops.concatenate(parts, axis=-1)
        if training:
            features = self.drop(features, noise)
        dense = ops.matmul(features, self._weight(self.dense_kernel)) + self._weight(self.dense_bias)
        dense = ops.cast(self.dense_activation(dense), "float32")
        return ops.concatenate([dense, take_rows(self.user_table, user)], axis=-1)

    def _weight(self, variable: keras.Variable) -> Tensor:
        return ops.cast(variable, self.compute_dtype)

    def _vertical(self, image: Tensor) -> Tensor:
        kernel = ops.transpose(self._weight(self.vertical_kernel))
        sums = ops.matmul(kernel, image) + ops.expand_dims(self._weight(self.vertical_bias), -1)
        return ops.reshape(sums, (-1, self.vertical_filters * self.dim))

    def _horizontal(self, image: Tensor) -> Tensor:
        """A convolution a height."""
        # One row more: of no rows, TensorFlow's convolution on CPUs gives back its input.
        image, pooled = ops.pad(image, [(0, 1), (0, 0), (0, 0)]), []
        for kernel, bias, activation in zip(
            self.horizontal_kernels, self.horizontal_biases, self.conv_activations, strict=True
        ):
            window = ops.reshape(self._weight(kernel), (-1, self.dim, self.horizontal_filters))
            convolved = ops.conv(image, window, padding="valid", data_format="channels_last") + self._weight(bias)
            pooled.append(ops.max(activation(convolved), axis=1))
        return ops.concatenate(pooled, axis=-1)[:-1]

    def _horizontal_in_bands(self, image: Tensor) -> Tensor:
        """The same, all heights at all places in one matrix product: each filter is a band of `[L d, places n_h]`."""
        length, filters = self.sequence_length, self.horizontal_filters
        flat = ops.reshape(image, (-1, length * self.dim))
        bands, biases = [], []
        for height, (kernel, bias) in enumerate(zip(self.horizontal_kernels, self.horizontal_biases, strict=True), 1):
            places = length - height + 1
            for place in range(places):
                bands.append(
                    ops.pad(self._weight(kernel), [(place * self.dim, (places - 1 - place) * self.dim), (0, 0)])
                )
            biases.append(ops.tile(self._weight(bias), places))
        convolved = ops.matmul(flat, ops.concatenate(bands, axis=1)) + ops.concatenate(biases)
        counts = [(length - height) * filters for height in range(length)]
        # One split, not a slice a height: the gradient of a slice is the whole tensor again, filled with zeros.
        # With no place to cut at, Keras hands TensorFlow sizes that are no whole numbers.
        parts = ops.split(convolved, list(itertools.accumulate(counts))[:-1], axis=1) if length > 1 else [convolved]
        pooled = [
            ops.max(activation(ops.reshape(part, (-1, length - place, filters))), axis=1)
            for place, (activation, part) in enumerate(zip(self.conv_activations, parts, strict=True))
        ]
        return ops.concatenate(pooled, axis=-1)
