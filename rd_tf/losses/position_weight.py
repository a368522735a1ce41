"""Position importance, w^a."""

from typing import Any

from keras import ops

Tensor = Any


def position_weight(list_length: int, temperature: float) -> Tensor:
    """Weighs the places of a teacher's list: the higher, the more it counts.

    `w^a_r = exp(-r / lambda) / sum_r' exp(-r' / lambda)`, r = 1 .. K. Source: Tang & Wang, KDD 2018, equation 8.

    Args:
        list_length: K, at least 1.
        temperature: lambda, above 0, in ranks: the weight falls by a factor e every lambda ranks.

    Returns:
        `[K] float32`, sums to 1.

    Raises:
        ValueError: an argument out of range.
    """
    if list_length < 1:
        raise ValueError(f"list_length must be at least 1; received {list_length}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0; received {temperature}")
    # A softmax is the same quotient, without underflow of all terms for a small temperature.
    return ops.softmax(-ops.arange(1, list_length + 1, dtype="float32") / temperature)
