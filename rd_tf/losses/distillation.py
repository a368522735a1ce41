"""The distillation loss."""

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable("rd_tf")
class WeightedPointwiseDistillation(keras.losses.Loss):
    """Log loss of the teacher's items taken as weighted positives.

    `loss = - sum_r weight_r log sigmoid(logit_r)`, r over the teacher's list, best first.

    Computed from logits as softplus, so it is exact for any finite logit. Weights are constants: no gradient flows
    into them. Source: Tang & Wang, KDD 2018, equation 7.

    Args:
        reduction: as in `keras.losses.Loss`; "sum_over_batch_size" averages over the batch.
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of every list.

        Args:
            y_true: `[batch, K]` weights of the teacher's items, at least 0.
            y_pred: `[batch, K]` the student's logits for the same items.

        Returns:
            `[batch] float32`.
        """
        logits = ops.cast(y_pred, "float32")
        weights = ops.stop_gradient(ops.cast(y_true, "float32"))
        return ops.sum(weights * ops.softplus(-logits), axis=-1)
