"""Rankers: encoders of a user and recent items, and the item table that scores."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rd_tf.models.caser import Caser
    from rd_tf.models.fossil import Fossil
    from rd_tf.models.ranker import SequenceRanker

__all__ = ["Caser", "Fossil", "SequenceRanker"]
_MODULES = {"Caser": "caser", "Fossil": "fossil", "SequenceRanker": "ranker"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
