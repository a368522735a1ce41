"""Ranking losses: what a ranker learns from the items that came next."""

from typing import Any

import keras
from keras import ops

from rd_tf.plugins import constructor_keywords, register_loss

Tensor = Any


class RankingLoss(keras.losses.Loss):
    """Base of ranking losses. Any `keras.losses.Loss` whose `call` returns `[batch]` works too.

    Attributes:
        needs: empty, or {"sampled_logits"}: then `call` is given `{"labels": ..., "sampled_logits": ...}` in place of
            the labels, the latter `[batch, samples] float32`, logits of items drawn uniformly, -inf for seen ones.
    """

    needs: frozenset[str] = frozenset()

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
