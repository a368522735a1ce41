"""Rankers: encoders of a user and recent items, and the item table that scores."""

from typing import TYPE_CHECKING, Any

from rd_tf import lazy_attribute

if TYPE_CHECKING:
    from rd_tf.models.caser import Caser
    from rd_tf.models.fossil import Fossil
    from rd_tf.models.ranker import SequenceRanker
    from rd_tf.models.sasrec import SASRec

__all__ = ["Caser", "Fossil", "SASRec", "SequenceRanker"]
_PLACES = {
    "Caser": "rd_tf.models.caser:Caser",
    "Fossil": "rd_tf.models.fossil:Fossil",
    "SASRec": "rd_tf.models.sasrec:SASRec",
    "SequenceRanker": "rd_tf.models.ranker:SequenceRanker",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _PLACES, name)
