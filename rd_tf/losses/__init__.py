"""Ranking losses, distillation losses and the weights of a teacher's list."""

from typing import TYPE_CHECKING, Any

from rd_tf import lazy_attribute

if TYPE_CHECKING:
    from rd_tf.losses.distillation import (
        DistillationLoss,
        ListwiseSoftmaxDistillation,
        WeightedPointwiseDistillation,
    )
    from rd_tf.losses.ranking import FullSoftmax, PointwiseLogLoss, RankingLoss, SampledSoftmax

__all__ = [
    "DistillationLoss",
    "FullSoftmax",
    "ListwiseSoftmaxDistillation",
    "PointwiseLogLoss",
    "RankingLoss",
    "SampledSoftmax",
    "WeightedPointwiseDistillation",
]
_PLACES = {
    "DistillationLoss": "rd_tf.losses.distillation:DistillationLoss",
    "FullSoftmax": "rd_tf.losses.ranking:FullSoftmax",
    "ListwiseSoftmaxDistillation": "rd_tf.losses.distillation:ListwiseSoftmaxDistillation",
    "PointwiseLogLoss": "rd_tf.losses.ranking:PointwiseLogLoss",
    "RankingLoss": "rd_tf.losses.ranking:RankingLoss",
    "SampledSoftmax": "rd_tf.losses.ranking:SampledSoftmax",
    "WeightedPointwiseDistillation": "rd_tf.losses.distillation:WeightedPointwiseDistillation",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)
