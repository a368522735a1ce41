"""The point-wise ranking loss."""

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable("rd_tf")
class PointwiseLogLoss(keras.losses.Loss):
    """Log loss of positives and sampled negatives, summed over a list.

    `loss = - sum_positive log sigmoid(logit) - sum_negative log(1 - sigmoid(logit))`

    Computed from logits as softplus, so it is exact for any finite logit. Source: Tang & Wang, KDD 2018, equation 2.

    Args:
        reduction: as in `keras.losses.Loss`; "sum_over_batch_size" averages over the batch.
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
