"""Where the student ranks the teacher's items."""

from typing import Any

from keras import ops

Tensor = Any


def estimate_student_rank(teacher_item_logits: Tensor, sampled_logits: Tensor, num_items: int) -> Tensor:
    """Estimates ranks from a sample of the catalogue.

    `rank = floor(num_items * share of sampled items with a higher score)`, counted from 0.
    Source: Tang & Wang, KDD 2018, equation 9.

    Args:
        teacher_item_logits: `[batch, K]`, the student's logits for the teacher's items.
        sampled_logits: `[batch, samples]`, the student's logits for items drawn uniformly.
        num_items: items of the catalogue, the padding not counted.

    Returns:
        `[batch, K] float32`, whole numbers from 0 to num_items.
    """
    higher = _count_higher(teacher_item_logits, sampled_logits)
    # Divided first, as the authors do: share * num_items may differ in the last bit, and floor would show it.
    share = higher / ops.cast(ops.shape(sampled_logits)[-1], "float32")
    return ops.floor(num_items * share)


def exact_student_rank(teacher_item_logits: Tensor, all_logits: Tensor) -> Tensor:
    """Counts ranks over the whole catalogue.

    Args:
        teacher_item_logits: `[batch, K]`, the student's logits for the teacher's items, taken from `all_logits`.
        all_logits: `[batch, items]`, the student's logits for every item; -inf for a row that is no item.

    Returns:
        `[batch, K] float32`, the number of items with a higher score.
    """
    return _count_higher(teacher_item_logits, all_logits)


def _count_higher(logits: Tensor, others: Tensor) -> Tensor:
    # One column of the list at a time: [batch, K, items] would not fit in the cache, or in memory.
    columns = [ops.sum(ops.cast(others > logits[:, r : r + 1], "float32"), axis=-1) for r in range(logits.shape[-1])]
    return ops.stop_gradient(ops.stack(columns, axis=-1))
