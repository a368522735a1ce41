"""The two weights together."""

from typing import Any

from keras import ops

Tensor = Any


def hybrid_weight(position: Tensor, discrepancy: Tensor, renormalize: bool = False) -> Tensor:
    """Multiplies position importance and ranking discrepancy.

    Source: Tang & Wang, KDD 2018, section 4.3.3; the authors' code has the renormalisation as a switch, off.

    Args:
        position: `[K]`, w^a.
        discrepancy: `[batch, K]`, w^b.
        renormalize: whether each row is scaled to sum to 1; a row of zeros stays zero.

    Returns:
        `[batch, K] float32`, cut off from the gradient.
    """
    weight = position * discrepancy
    if renormalize:
        weight = ops.divide_no_nan(weight, ops.sum(weight, axis=-1, keepdims=True))
    return ops.stop_gradient(weight)
