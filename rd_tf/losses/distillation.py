"""Distillation losses: what a student learns from a teacher's list, or from items drawn of it; and of margins."""

from typing import Any

import keras
import numpy as np
from keras import ops

from rd_tf.losses.weights import corrected_logits, discrepancy_weight, hybrid_weight, mean_pair_loss, position_weight
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


# Stands for -inf where a gradient flows: the difference of two infinities is no number.
_NEVER = -1e30


@register_loss("rrd")
class RelaxedRankingDistillation(DistillationLoss):
    """Likelihood that items drawn from the list come in the teacher's order, and before all negatives.

    `loss = - sum_k log(exp(s_k) / (sum_{i >= k} exp(s_i) + sum_negative exp(s)))`, s the student's logits, k and i over
    `list_samples` items in the teacher's order, drawn without replacement with a probability that falls with the place
    in the list: `p_r ~ exp(-r / position_temperature)`. The order among negatives does not count.

    Source: the relaxed ranking distillation of Kang et al., "DE-RRD", CIKM 2020. Theirs draws negatives for every
    user; here they are those that the batch shares.

    Args:
        position_temperature: above 0, in ranks.
        list_samples: items drawn of a list, at least 1; all of a shorter one.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"shared_logits", "list_noise"})

    def __init__(self, position_temperature: float = 1.0, list_samples: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check(position_temperature=position_temperature, list_samples=list_samples)
        self.position_temperature = position_temperature
        self.list_samples = list_samples

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        places = _draw(_log_position(student_logits, self.position_temperature), told["list_noise"], self.list_samples)
        drawn = _take(corrected_logits(told, student_logits), ops.sort(places, axis=-1))
        return ops.sum(_order_losses(drawn, told["shared_logits"]), axis=-1)


@register_loss("cd")
class CollaborativeDistillation(DistillationLoss):
    """Log loss of items drawn from the list, labelled with the teacher's probabilities.

    `loss = - sum_drawn (q log sigmoid(s) + (1 - q) log(1 - sigmoid(s)))`, s the student's logit and
    `q = sigmoid((teacher's score - score_bias) / score_temperature)`. Items are drawn as for
    `RelaxedRankingDistillation`.

    Source: Lee et al., "Collaborative Distillation for Top-N Recommendation", ICDM 2019, with the teacher's ranks as
    guide. Theirs draws from the whole catalogue; a cache of lists has no scores of other items.

    Args:
        position_temperature: above 0, in ranks.
        list_samples: items drawn of a list, at least 1; all of a shorter one.
        score_temperature: above 0, in units of the teacher's scores.
        score_bias: the score of an item that is labelled one half.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"teacher_scores", "list_noise"})

    def __init__(
        self,
        position_temperature: float = 1.0,
        list_samples: int = 10,
        score_temperature: float = 0.1,
        score_bias: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check(
            position_temperature=position_temperature, list_samples=list_samples, score_temperature=score_temperature
        )
        self.position_temperature = position_temperature
        self.list_samples = list_samples
        self.score_temperature = score_temperature
        self.score_bias = score_bias

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        places = _draw(_log_position(student_logits, self.position_temperature), told["list_noise"], self.list_samples)
        drawn = _take(ops.cast(student_logits, "float32"), places)
        label = ops.sigmoid((_take(told["teacher_scores"], places) - self.score_bias) / self.score_temperature)
        return ops.sum(ops.softplus(drawn) - label * drawn, axis=-1)


@register_loss("dcd")
class DualCorrectionDistillation(DistillationLoss):
    """Likelihood that items which the student ranks too low come in order, and before those it ranks too high.

    `loss = - sum_k log(exp(s_k) / (sum_{i >= k} exp(s_i) + sum_negative v exp(s)))`, s the student's logits.
    k and i run over the under-estimated items: `list_samples` of the list, in the teacher's order, drawn without
    replacement with probabilities proportional to `tanh(max(0, sharpness (student's rank - teacher's rank)))`. The
    negatives are over-estimated where `v = tanh(sharpness (teacher's rank - student's rank))` is above 0. Weights are
    constants: no gradient flows into them. A list without an under-estimated item has the loss 0.

    Source: the user side of Lee & Kim, "Dual Correction Strategy for Ranking Distillation", CIKM 2021, without its item
    side and without the RRD that it is added to. A cache of the top K has no ranks of the items below, so they are
    approximated: a negative's two ranks are counted among the drawn items and itself, where the teacher's is last, for
    certain, and the difference is the number of drawn items that the student scores lower. Theirs draws over-estimated
    items by their weights; here all negatives that the batch shares count with them, which is what a draw does on
    average. Before the student's ranks are told, all items of the list are equally likely to be drawn.

    Args:
        sharpness: at least 0, per rank.
        list_samples: items drawn of a list, at least 1; all of a shorter one.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"student_rank", "shared_logits", "list_noise"})

    def __init__(self, sharpness: float = 0.1, list_samples: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not sharpness >= 0:
            raise ValueError(f"sharpness must be at least 0; received {sharpness}")
        _check(list_samples=list_samples)
        self.sharpness = sharpness
        self.list_samples = list_samples

    def weight(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        if "student_rank" not in told:
            return ops.ones_like(student_logits)
        return discrepancy_weight(told["student_rank"], self.sharpness)

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        log_weight, shared = _safe_log(self.weight(told, student_logits)), told["shared_logits"]
        places = ops.sort(_draw(log_weight, told["list_noise"], self.list_samples), axis=-1)
        is_drawn = _take(log_weight, places) > _NEVER
        drawn = ops.where(is_drawn, _take(corrected_logits(told, student_logits), places), _NEVER)
        higher = [
            ops.cast(ops.logical_and(shared > drawn[:, r : r + 1], is_drawn[:, r : r + 1]), "float32")
            for r in range(drawn.shape[1])
        ]
        over_estimated = ops.tanh(self.sharpness * sum(higher))
        rest = ops.maximum(shared, _NEVER) + ops.stop_gradient(_safe_log(over_estimated))
        return ops.sum(ops.where(is_drawn, _order_losses(drawn, rest), 0.0), axis=-1)


@register_loss("unkd")
class UnbiasedDistillation(DistillationLoss):
    """Log loss of pairs of the list whose items are of the same popularity group.

    `loss = - mean over pairs log sigmoid(s_higher - s_lower)`, s the student's logits; the pairs are those of
    `list_samples` items, drawn without replacement with the probability `p_r ~ exp(-r / position_temperature)`, r the
    place among the list's items of the same group. So what the teacher owes to an item's popularity is not taught. A
    draw without a pair has the loss 0.

    Source: Chen et al., "Unbiased Knowledge Distillation for Recommendation", WSDM 2023. Theirs ranks all items
    of a group and draws as many of each; here they are those of the list, and the mean over all pairs stands in
    place of sums, so that their number does not change what alpha means.

    Args:
        position_temperature: above 0, in ranks.
        list_samples: items drawn of a list, at least 1; all of a shorter one.
        popularity_groups: groups of equal total popularity, at least 1.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"item_groups", "list_noise"})

    def __init__(
        self, position_temperature: float = 1.0, list_samples: int = 10, popularity_groups: int = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _check(
            position_temperature=position_temperature, list_samples=list_samples, popularity_groups=popularity_groups
        )
        self.position_temperature = position_temperature
        self.list_samples = list_samples
        self.popularity_groups = popularity_groups

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        is_in = ops.one_hot(told["item_groups"], self.popularity_groups, dtype="float32")
        place_in_group = ops.sum(is_in * ops.cumsum(is_in, axis=1), axis=-1)
        places = _draw(-place_in_group / self.position_temperature, told["list_noise"], self.list_samples)
        places = ops.sort(places, axis=-1)
        logits, group = _take(ops.cast(student_logits, "float32"), places), _take(told["item_groups"], places)
        is_same = ops.equal(ops.expand_dims(group, 2), ops.expand_dims(group, 1))
        is_above = np.triu(np.ones((group.shape[1],) * 2, "float32"), 1)
        return mean_pair_loss(logits, ops.cast(is_same, "float32") * is_above)


@register_loss("margin_mse")
class MarginMSEDistillation(DistillationLoss):
    """Mean squared difference of the teacher's and the student's margins, over all pairs of the list.

    `loss = mean over i != j ((t_i - t_j) / score_temperature - (s_i - s_j))^2`, t the teacher's scores, s the
    student's logits. It is computed as `2 K / (K - 1)` times the variance of `t / score_temperature - s` over the list,
    which is the same number. A list of one item has the loss 0.

    Source: Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation", 2020; there, the pairs are a relevant and another passage, and nothing is scaled.

    Args:
        score_temperature: above 0, in units of the teacher's scores for one of the student's logits.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"teacher_scores"})

    def __init__(self, score_temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check(score_temperature=score_temperature)
        self.score_temperature = score_temperature

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        length = student_logits.shape[1]
        difference = told["teacher_scores"] / self.score_temperature - ops.cast(student_logits, "float32")
        return ops.var(difference, axis=-1) * (2.0 * length / max(length - 1, 1))


@register_loss("rankdistil")
class RankDistil(DistillationLoss):
    """Cross entropy of the teacher's and the student's Plackett-Luce distribution over the first places.

    `loss = - sum_{k <= n} log(exp(s_k) / (sum_{i >= k} exp(s_i) + sum_negative exp(s)))`, s the student's logits, k and
    i over the list in an order drawn from the teacher's Plackett-Luce distribution, whose scores are
    `teacher's score / score_temperature`; n = `list_samples` places count. One draw a step is an unbiased estimate of
    the cross entropy. It keeps the teacher's order at the top and pushes what the teacher ranks low, the rest of the
    list and the negatives, below it.

    Source: Coupled-RankDistil of Reddi et al., "RankDistil: Knowledge Distillation for Ranking", AISTATS 2021, as
    TensorFlow Ranking's `CoupledRankDistilLoss` has it, with the negatives that the batch shares in place of the
    catalogue; the teacher's probability of them is taken to be 0.

    Args:
        score_temperature: above 0, in units of the teacher's scores; the smaller, the closer to the list's own order.
        list_samples: n, at least 1; all places of a shorter list.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"teacher_scores", "shared_logits", "list_noise"})

    def __init__(self, score_temperature: float = 0.1, list_samples: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check(score_temperature=score_temperature, list_samples=list_samples)
        self.score_temperature = score_temperature
        self.list_samples = list_samples

    def call(self, told: dict[str, Tensor], student_logits: Tensor) -> Tensor:
        scores = told["teacher_scores"] / self.score_temperature
        order = _draw(scores, told["list_noise"], student_logits.shape[1])
        losses = _order_losses(_take(corrected_logits(told, student_logits), order), told["shared_logits"])
        return ops.sum(losses[:, : self.list_samples], axis=-1)


def _check(**values: float) -> None:
    for name, value in values.items():
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{name} must be at least 1; received {value}")
        if not value > 0:
            raise ValueError(f"{name} must be above 0; received {value}")


def _log_position(logits: Tensor, temperature: float) -> Tensor:
    return -ops.arange(1, logits.shape[1] + 1, dtype="float32") / temperature


def _safe_log(weight: Tensor) -> Tensor:
    return ops.where(weight > 0, ops.log(ops.maximum(weight, 1e-30)), _NEVER)


def _draw(log_weight: Tensor, noise: Tensor, count: int) -> Tensor:
    """Places `[batch, count] int32` of items drawn without replacement, in the order of the draw.

    The Gumbel-top-k trick: Kool, van Hoof & Welling, ICML 2019.
    """
    # Away from 0 and 1, whose logarithms are infinite.
    uniform = ops.clip(noise, 1e-7, 1.0 - 1e-7)
    keys = log_weight - ops.log(-ops.log(uniform))
    return ops.top_k(keys, min(count, noise.shape[1]))[1]


def _take(values: Tensor, places: Tensor) -> Tensor:
    return ops.take_along_axis(values, places, axis=1)


def _order_losses(logits: Tensor, rest: Tensor) -> Tensor:
    """- log of the probability that each item is the first of itself, those behind it and the rest.

    The factors of a Plackett-Luce distribution in which the order of the rest does not count.

    Args:
        logits: `[batch, n]`, in the order that is wanted.
        rest: `[batch, m]`, -inf for what is not there.

    Returns:
        `[batch, n] float32`.
    """
    rest = ops.logsumexp(ops.maximum(rest, _NEVER), axis=-1, keepdims=True)
    # Sums over 1, 2, 4, ... items from each place on. Of exponents, `ops.cumsum` would underflow behind a high logit.
    behind, reach = logits, 1
    while reach < logits.shape[1]:
        further = ops.pad(behind[:, reach:], [(0, 0), (0, reach)], constant_values=_NEVER)
        behind, reach = _log_add(behind, further), 2 * reach
    # log(exp(behind) + exp(rest)) - logits
    return behind - logits + ops.softplus(rest - behind)


def _log_add(one: Tensor, other: Tensor) -> Tensor:
    # Not `ops.logaddexp`, whose gradient goes to one of the two where they are equal.
    larger = ops.stop_gradient(ops.maximum(one, other))
    return larger + ops.log(ops.exp(one - larger) + ops.exp(other - larger))
