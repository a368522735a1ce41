"""Ranking losses, distillation losses and the weights of a teacher's list."""

from typing import TYPE_CHECKING, Any

from rd_tf import lazy_attribute

if TYPE_CHECKING:
    from rd_tf.losses.distillation import DistillationLoss, WeightedPointwiseDistillation
    from rd_tf.losses.ranking import PointwiseLogLoss, RankingLoss

__all__ = ["DistillationLoss", "PointwiseLogLoss", "RankingLoss", "WeightedPointwiseDistillation"]
_PLACES = {
    "DistillationLoss": "rd_tf.losses.distillation:DistillationLoss",
    "PointwiseLogLoss": "rd_tf.losses.ranking:PointwiseLogLoss",
    "RankingLoss": "rd_tf.losses.ranking:RankingLoss",
    "WeightedPointwiseDistillation": "rd_tf.losses.distillation:WeightedPointwiseDistillation",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)
