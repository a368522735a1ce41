"""Distillation losses: what a student learns from a teacher's list."""

from typing import Any

import keras
from keras import ops

from rd_tf.losses.weights import corrected_logits, discrepancy_weight, hybrid_weight, position_weight
from rd_tf.plugins import constructor_keywords, register_loss

Tensor = Any


class DistillationLoss(keras.losses.Loss):
    """Base of the losses of a teacher's list. A subclass writes `call` and names what it needs to be told.

    Attributes:
        needs: names of what `call` finds in its first argument, out of
            "teacher_scores" `[batch, K] float32`: the teacher's own scores of its list;
            "student_rank" `[batch, K] float32`: how many items the student scores higher than the teacher's item. It is
            missing in the epochs before `student_rank_from_epoch` of `RankingDistiller.compile`;
            "sampled_logits" `[batch, samples] float32`: the student's logits of items drawn uniformly, -inf for items
            that the user has seen. Gradients flow through them;
            "shared_logits" `[batch, shared] float32`: the student's logits of negatives that all rows of a batch share,
            less the log of how much more often each is drawn than by a uniform draw, -inf for items that are in the
            row's list or that its user has seen. Where the draw is not uniform "log_ratio" `[batch, K]` comes with it,
            to be taken off the list's logits;
            "all_logits" `[batch, num_items + 1] float32`: the student's logits of all items, -inf for the padding;
            "num_items" `int`: items of the catalogue, the padding not counted;
            "list_noise" `[batch, K] float32`: numbers drawn uniformly from [0, 1), for a loss that samples of a list;
            "item_groups" `[batch, K] int32`: which of the `popularity_groups` an item of the list is in, 0 the group of
            the most popular; see `rd_tf.data.batches.popularity_groups`.
        popularity_groups: how many groups of items a loss that needs "item_groups" wants.
    """

    needs: frozenset[str] = frozenset()
    popularity_groups = 0

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        """Computes the loss of every list.

        Args:
            told: what `needs` names.
            student_logits: `[batch, K] float32`, the student's logits of the teacher's items, best first.

        Returns:
            `[batch] float32`. `RankingDistiller` averages them over the batch, whatever the loss's `reduction`.
        """
        raise NotImplementedError

    def weight(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor | None:
        """How much each item of a list counts, `[batch, K] float32`, for a loss that weighs: shown while training."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The constructor's keywords, each read from the attribute of its name."""
        return {**super().get_config(), **constructor_keywords(self)}


@register_loss("weighted_pointwise")
class WeightedPointwiseDistillation(DistillationLoss):
    """Log loss of the teacher's items taken as weighted positives: ranking distillation.

    `loss = - sum_r weight_r log sigmoid(logit_r)`, r over the teacher's list, best first, with
    `weight = w^a`, by the place in the teacher's list, or `w^a w^b`, by the student's rank of the item too.

    Computed from logits as softplus, so it is exact for any finite logit. Weights are constants: no gradient flows
    into them. Source: Tang & Wang, KDD 2018, equations 7 to 10.

    Args:
        temperature: lambda of w^a, above 0, in ranks.
        sharpness: mu of w^b, at least 0, per rank.
        renormalize: whether w^a w^b is scaled to sum to 1 over a list.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"student_rank"})

    def __init__(
        self, temperature: float = 1.0, sharpness: float = 0.1, renormalize: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0; received {temperature}")
        if not sharpness >= 0:
            raise ValueError(f"sharpness must be at least 0; received {sharpness}")
        self.temperature = temperature
        self.sharpness = sharpness
        self.renormalize = renormalize

    def weight(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        position = position_weight(student_logits.shape[1], self.temperature)
        if "student_rank" not in told:
            return ops.zeros_like(student_logits) + position
        return hybrid_weight(position, discrepancy_weight(told["student_rank"], self.sharpness), self.renormalize)

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        return weighted_pointwise(self.weight(told, student_logits), student_logits)


def weighted_pointwise(weight: Tensor, logits: Tensor) -> Tensor:
    """Log loss of weighted positives.

    Args:
        weight: `[batch, K]`, at least 0; no gradient flows into it.
        logits: `[batch, K]`.

    Returns:
        `[batch] float32`.
    """
    weight = ops.stop_gradient(ops.cast(weight, "float32"))
    return ops.sum(weight * ops.softplus(-ops.cast(logits, "float32")), axis=-1)


@register_loss("listwise")
class ListwiseSoftmaxDistillation(DistillationLoss):
    """Cross entropy of the teacher's distribution over its list and the student's over the list and shared negatives.

    `loss = - sum_r p_r log q_r`, `p = softmax(teacher's scores / score_temperature)` over the list,
    `q = softmax(logits)` over the list and the negatives. Source: the knowledge distillation of Hinton, Vinyals & Dean,
    2015, over the top-one probabilities of ListNet (Cao et al., ICML 2007).

    Args:
        score_temperature: above 0, in units of the teacher's scores.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"teacher_scores", "shared_logits"})

    def __init__(self, score_temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not score_temperature > 0:
            raise ValueError(f"score_temperature must be above 0; received {score_temperature}")
        self.score_temperature = score_temperature

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        logits = corrected_logits(told, student_logits)
        wanted = ops.softmax(told["teacher_scores"] / self.score_temperature, axis=-1)
        total = ops.logaddexp(ops.logsumexp(logits, axis=-1), ops.logsumexp(told["shared_logits"], axis=-1))
        return total - ops.sum(wanted * logits, axis=-1)
