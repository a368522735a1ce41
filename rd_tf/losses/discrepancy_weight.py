"""Ranking discrepancy, w^b."""

from typing import Any

from keras import ops

Tensor = Any


def discrepancy_weight(student_rank: Tensor, sharpness: float) -> Tensor:
    """Weighs the teacher's items by how much lower the student ranks them.

    `w^b_r = tanh(max(0, mu (student_rank_r - teacher_rank_r)))`, with both ranks counted from 0: it is zero where the
    student ranks the item as high as the teacher. Source: Tang & Wang, KDD 2018, equation 10.

    Args:
        student_rank: `[batch, K]`, number of items that the student scores higher than the teacher's item; column r
            belongs to the teacher's item of rank r, counted from 0.
        sharpness: mu, at least 0, per rank.

    Returns:
        `[batch, K] float32` in [0, 1).

    Raises:
        ValueError: a negative sharpness.
    """
    if not sharpness >= 0:
        raise ValueError(f"sharpness must be at least 0; received {sharpness}")
    teacher_rank = ops.arange(ops.shape(student_rank)[-1], dtype="float32")
    return ops.tanh(ops.relu(sharpness * (ops.cast(student_rank, "float32") - teacher_rank)))
