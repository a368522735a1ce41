"""Ranking losses: what a ranker learns from the items that came next."""

from typing import Any

import keras
from keras import ops

from rd_tf.losses.weights import corrected_logits, mean_pair_loss
from rd_tf.plugins import constructor_keywords, register_loss

Tensor = Any


class RankingLoss(keras.losses.Loss):
    """Base of ranking losses. Any `keras.losses.Loss` whose `call` returns `[batch]` works too.

    Attributes:
        needs: names of what `call` is given in place of the labels, as `{"labels": ..., name: ...}`, out of
            "sampled_logits" `[batch, samples] float32`: logits of items drawn uniformly, -inf for seen ones;
            "shared_logits" `[batch, shared] float32`: logits of negatives that all rows of a batch share, less the log
            of how much more often each is drawn than by a uniform draw, -inf for a row's targets and for items that
            its user has seen. Where the draw is not uniform "log_ratio" `[batch, n]` comes with it, to be taken off the
            row's own logits;
            "all_logits" `[batch, num_items + 1] float32`: logits of all items, -inf for the padding;
            "num_items" `int`: items of the catalogue, the padding not counted.
        takes_negatives: whether a row is to have negatives of its own among its items.
    """

    needs: frozenset[str] = frozenset()
    takes_negatives = True

    def get_config(self) -> dict[str, Any]:
        """The constructor's keywords, each read from the attribute of its name."""
        return {**super().get_config(), **constructor_keywords(self)}


@register_loss("pointwise")
class PointwiseLogLoss(RankingLoss):
    """Log loss of positives and sampled negatives, summed over a list.

    `loss = - sum_positive log sigmoid(logit) - sum_negative log(1 - sigmoid(logit))`

    Computed from logits as softplus, so it is exact for any finite logit. Source: Tang & Wang, KDD 2018, equation 2.
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of every list.

        Args:
            y_true: `[batch, n]`, 1 = positive, 0 = negative, below 0 = ignored (padding).
            y_pred: `[batch, n]` logits.

        Returns:
            `[batch] float32`.
        """
        logits = ops.cast(y_pred, "float32")
        labels = ops.cast(y_true, "float32")
        # softplus(-x) for positives, softplus(x) for negatives.
        losses = ops.softplus(ops.where(labels > 0.5, -logits, logits))
        return ops.sum(ops.where(labels < 0, 0.0, losses), axis=-1)


@register_loss("bpr")
class BayesianPersonalizedRanking(RankingLoss):
    """Log loss of the pairs of a target and one of its row's own negatives.

    `loss = - mean over pairs log sigmoid(logit of the target - logit of the negative)`

    A row without a pair has the loss 0. Source: Rendle et al., UAI 2009, BPR-Opt; its regularisation is the
    optimizer's L2. The mean, where the source sums, so that the number of negatives does not change what alpha and the
    L2 weight mean.
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of every list.

        Args:
            y_true: `[batch, n]`, 1 = target, 0 = negative, below 0 = ignored (padding).
            y_pred: `[batch, n]` logits.

        Returns:
            `[batch] float32`.
        """
        logits, labels = ops.cast(y_pred, "float32"), ops.cast(y_true, "float32")
        is_target = ops.expand_dims(labels > 0.5, 2)
        is_negative = ops.expand_dims(ops.logical_and(labels > -0.5, labels < 0.5), 1)
        return mean_pair_loss(logits, ops.cast(ops.logical_and(is_target, is_negative), "float32"))


@register_loss("sampled_softmax")
class SampledSoftmax(RankingLoss):
    """Cross entropy of each target against negatives that the batch shares.

    `loss = - sum_positive log(exp(logit) / (exp(logit) + sum_shared exp(logit of the negative)))`

    Logits are corrected for how often an item is drawn, as `tf.nn.sampled_softmax_loss` does it. Source: Bengio &
    Senecal, IEEE Transactions on Neural Networks 2008; Jean et al., ACL 2015; with negatives of the batch Yi et al.,
    RecSys 2019.
    """

    needs = frozenset({"shared_logits"})
    takes_negatives = False

    def call(self, told: dict[str, Tensor], y_pred: Tensor) -> Tensor:
        """Computes the loss of every row.

        Args:
            told: "labels" `[batch, n]`, 1 = target, else ignored; "shared_logits" and, perhaps, "log_ratio".
            y_pred: `[batch, n]` logits.

        Returns:
            `[batch] float32`.
        """
        logits = corrected_logits(told, y_pred)
        rest = ops.logsumexp(told["shared_logits"], axis=-1, keepdims=True)
        # log(exp(x) + exp(rest)) - x
        losses = ops.softplus(rest - logits)
        return ops.sum(ops.where(told["labels"] > 0.5, losses, 0.0), axis=-1)


@register_loss("softmax")
class FullSoftmax(RankingLoss):
    """Cross entropy of each target against the whole catalogue.

    A step costs the catalogue times the batch, so it is for catalogues of some ten thousand items.
    """

    needs = frozenset({"all_logits"})
    takes_negatives = False

    def call(self, told: dict[str, Tensor], y_pred: Tensor) -> Tensor:
        """Computes the loss of every row.

        Args:
            told: "labels" `[batch, n]`, 1 = target, else ignored; "all_logits".
            y_pred: `[batch, n]` logits.

        Returns:
            `[batch] float32`.
        """
        # The target's own term is among all.
        losses = ops.logsumexp(told["all_logits"], axis=-1, keepdims=True) - ops.cast(y_pred, "float32")
        return ops.sum(ops.where(told["labels"] > 0.5, losses, 0.0), axis=-1)


@register_loss("gbce")
class GeneralizedBinaryCrossEntropy(RankingLoss):
    """Log loss of each target and of the negatives that the batch shares, the target's tempered by how many they are.

    `loss = - sum_positive (beta log sigmoid(logit) + sum_shared log(1 - sigmoid(logit of the negative)))`, with
    `beta = alpha (t (1 - 1 / alpha) + 1 / alpha) = 1 - t (1 - alpha)`, t the calibration and alpha the sampling rate:
    the row's negatives, those that are masked not counted, over the catalogue but for the target. t = 0 is the binary
    cross entropy; with t = 1 the sigmoid of a logit is the probability that it would be without sampling.

    Source: Petrov & Macdonald, "gSASRec", RecSys 2023, equations of L_gBCE and beta. Theirs is divided by the
    negatives + 1. This one is summed as the other losses are: divided, the L2 weight would outweigh it.

    Args:
        calibration: t, from 0 to 1.

    Raises:
        ValueError: an argument out of range.
    """

    needs = frozenset({"shared_logits", "num_items"})
    takes_negatives = False

    def __init__(self, calibration: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= calibration <= 1:
            raise ValueError(f"calibration must be from 0 to 1; received {calibration}")
        self.calibration = calibration

    def call(self, told: dict[str, Tensor], y_pred: Tensor) -> Tensor:
        """Computes the loss of every row.

        Args:
            told: "labels" `[batch, n]`, 1 = target, else ignored; "shared_logits", "num_items" and, perhaps,
                "log_ratio".
            y_pred: `[batch, n]` logits.

        Returns:
            `[batch] float32`.
        """
        logits, shared = corrected_logits(told, y_pred), told["shared_logits"]
        negatives = ops.sum(ops.cast(shared > -float("inf"), "float32"), axis=-1, keepdims=True)
        # Drawn by popularity, an item may come twice, and so more than all.
        rate = ops.minimum(negatives / max(told["num_items"] - 1, 1), 1.0)
        beta = 1.0 - self.calibration * (1.0 - rate)
        rest = ops.sum(ops.softplus(shared), axis=-1, keepdims=True)
        losses = beta * ops.softplus(-logits) + rest
        return ops.sum(ops.where(told["labels"] > 0.5, losses, 0.0), axis=-1)
