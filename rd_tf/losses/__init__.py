"""Ranking losses, distillation losses and the weights of a teacher's list."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rd_tf.losses.distillation import DistillationLoss, WeightedPointwiseDistillation
    from rd_tf.losses.ranking import PointwiseLogLoss, RankingLoss

__all__ = ["DistillationLoss", "PointwiseLogLoss", "RankingLoss", "WeightedPointwiseDistillation"]
_MODULES = {
    "DistillationLoss": "distillation",
    "PointwiseLogLoss": "ranking",
    "RankingLoss": "ranking",
    "WeightedPointwiseDistillation": "distillation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
