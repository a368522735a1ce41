"""Ranking losses, distillation losses and the weights of a teacher's list."""

from typing import TYPE_CHECKING, Any

from rd_tf import lazy_attribute

if TYPE_CHECKING:
    from rd_tf.losses.distillation import (
        CollaborativeDistillation,
        DistillationLoss,
        DualCorrectionDistillation,
        ListwiseSoftmaxDistillation,
        MarginMSEDistillation,
        RankDistil,
        RelaxedRankingDistillation,
        UnbiasedDistillation,
        WeightedPointwiseDistillation,
    )
    from rd_tf.losses.ranking import (
        BayesianPersonalizedRanking,
        FullSoftmax,
        GeneralizedBinaryCrossEntropy,
        PointwiseLogLoss,
        RankingLoss,
        SampledSoftmax,
    )

__all__ = [
    "BayesianPersonalizedRanking",
    "CollaborativeDistillation",
    "DistillationLoss",
    "DualCorrectionDistillation",
    "FullSoftmax",
    "GeneralizedBinaryCrossEntropy",
    "ListwiseSoftmaxDistillation",
    "MarginMSEDistillation",
    "PointwiseLogLoss",
    "RankDistil",
    "RankingLoss",
    "RelaxedRankingDistillation",
    "SampledSoftmax",
    "UnbiasedDistillation",
    "WeightedPointwiseDistillation",
]
_PLACES = {
    "BayesianPersonalizedRanking": "rd_tf.losses.ranking:BayesianPersonalizedRanking",
    "CollaborativeDistillation": "rd_tf.losses.distillation:CollaborativeDistillation",
    "DistillationLoss": "rd_tf.losses.distillation:DistillationLoss",
    "DualCorrectionDistillation": "rd_tf.losses.distillation:DualCorrectionDistillation",
    "FullSoftmax": "rd_tf.losses.ranking:FullSoftmax",
    "GeneralizedBinaryCrossEntropy": "rd_tf.losses.ranking:GeneralizedBinaryCrossEntropy",
    "ListwiseSoftmaxDistillation": "rd_tf.losses.distillation:ListwiseSoftmaxDistillation",
    "MarginMSEDistillation": "rd_tf.losses.distillation:MarginMSEDistillation",
    "PointwiseLogLoss": "rd_tf.losses.ranking:PointwiseLogLoss",
    "RankDistil": "rd_tf.losses.distillation:RankDistil",
    "RankingLoss": "rd_tf.losses.ranking:RankingLoss",
    "RelaxedRankingDistillation": "rd_tf.losses.distillation:RelaxedRankingDistillation",
    "SampledSoftmax": "rd_tf.losses.ranking:SampledSoftmax",
    "UnbiasedDistillation": "rd_tf.losses.distillation:UnbiasedDistillation",
    "WeightedPointwiseDistillation": "rd_tf.losses.distillation:WeightedPointwiseDistillation",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)
