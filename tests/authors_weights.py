"""The weights of the authors' Caser as ours."""

from typing import Any

import numpy as np


def authors_weights(model: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The authors' weights under our names and in our layouts."""
    ours = {
        "user_table": arrays["user_embeddings.weight"],
        "sequence_table": arrays["item_embeddings.weight"],
        "vertical_kernel": arrays["conv_v.weight"][:, 0, :, 0].T,
        "vertical_bias": arrays["conv_v.bias"],
        "dense_kernel": arrays["fc1.weight"].T,
        "dense_bias": arrays["fc1.bias"],
        "item_table": arrays["W2.weight"],
        "item_bias": arrays["b2.weight"][:, 0],
    }
    for height in range(model.sequence_length):
        kernel = arrays[f"conv_h.{height}.weight"]
        ours[f"horizontal_kernels.{height}"] = kernel.reshape(len(kernel), -1).T
        ours[f"horizontal_biases.{height}"] = arrays[f"conv_h.{height}.bias"]
    return ours


def getattr_path(model: Any, path: str) -> Any:
    name, _, index = path.partition(".")
    value = getattr(model, name)
    return value[int(index)] if index else value
