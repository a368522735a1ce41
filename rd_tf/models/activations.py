"""Activations by the names of the command line."""

from typing import Any

import keras

# 0.01 is what the authors' code used; Keras' own default is 0.2.
LEAKY_SLOPE = 0.01
PRELU_START = 0.25


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
