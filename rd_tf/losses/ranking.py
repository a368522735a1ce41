"""Ranking losses: what a ranker learns from the items that came next."""

from typing import Any

import keras
from keras import ops

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
            "all_logits" `[batch, num_items + 1] float32`: logits of all items, -inf for the padding.
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
        logits = _corrected(told, y_pred)
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


def _corrected(told: dict[str, Tensor], logits: Tensor) -> Tensor:
    logits = ops.cast(logits, "float32")
    return logits - told["log_ratio"] if "log_ratio" in told else logits
