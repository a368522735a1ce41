"""How much a distilled item counts: by its position in the teacher's list, by the student's rank of it, by both.

And how much is taken off a logit for how often its item is drawn.
"""

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


def estimate_student_rank(teacher_item_logits: Tensor, sampled_logits: Tensor, num_items: int) -> Tensor:
    """Estimates ranks from a sample of the catalogue.

    `rank = floor(num_items * share of sampled items with a higher score)`, counted from 0.
    Source: Tang & Wang, KDD 2018, equation 9.

    Args:
        teacher_item_logits: `[batch, K]`, the student's logits for the teacher's items.
        sampled_logits: `[batch, samples]`, the student's logits for items drawn uniformly; -inf for those that the user
            has seen, so that the estimate is of the number of unseen items with a higher score.
        num_items: items of the catalogue, the padding not counted.

    Returns:
        `[batch, K] float32`, whole numbers from 0 to num_items.
    """
    higher = _count_higher(teacher_item_logits, sampled_logits)
    # Divided first, as the authors do: share * num_items may differ in the last bit, and floor would show it.
    share = higher / ops.cast(ops.shape(sampled_logits)[-1], "float32")
    return ops.floor(num_items * share)


def exact_student_rank(teacher_item_logits: Tensor, all_logits: Tensor) -> Tensor:
    """Counts ranks over the whole catalogue: what `estimate_student_rank` estimates where its samples are unseen items.

    Args:
        teacher_item_logits: `[batch, K]`, the student's logits for the teacher's items, taken from `all_logits`.
        all_logits: `[batch, items]`, the student's logits for every item; -inf for a row that is no item, and for the
            items that the user has seen, which are in no list that is recommended.

    Returns:
        `[batch, K] float32`, the number of unseen items with a higher score.
    """
    return _count_higher(teacher_item_logits, all_logits)


def _count_higher(logits: Tensor, others: Tensor) -> Tensor:
    # One column of the list at a time: [batch, K, items] would not fit in the cache, or in memory.
    columns = [ops.sum(ops.cast(others > logits[:, r : r + 1], "float32"), axis=-1) for r in range(logits.shape[-1])]
    return ops.stop_gradient(ops.stack(columns, axis=-1))


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


def corrected_logits(told: dict[str, Tensor], logits: Tensor) -> Tensor:
    """A row's own logits, less the log of how much more often each item is drawn as a shared negative.

    Args:
        told: what a loss is told; "log_ratio" is the correction, where there is one.
        logits: `[batch, n]`.

    Returns:
        `[batch, n] float32`.
    """
    logits = ops.cast(logits, "float32")
    return logits - told["log_ratio"] if "log_ratio" in told else logits


def mean_pair_loss(logits: Tensor, is_pair: Tensor) -> Tensor:
    """Log loss of pairs of a row's items, of which the first is to be the higher one; 0 where there is no pair.

    Args:
        logits: `[batch, n] float32`.
        is_pair: `[batch, n, n] float32`, 1 where item i and item j are a pair, else 0.

    Returns:
        `[batch] float32`.
    """
    losses = is_pair * ops.softplus(ops.expand_dims(logits, 1) - ops.expand_dims(logits, 2))
    return ops.sum(losses, axis=(1, 2)) / ops.maximum(ops.sum(is_pair, axis=(1, 2)), 1.0)
