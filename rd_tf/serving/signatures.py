"""The graph of an export: raw ids in, raw ids and scores out."""

import tensorflow as tf

from rd_tf.serving.batched_find import Batching, make_find
from rd_tf.serving.lookups import Lookups
from rd_tf.serving.query_encoder import QueryEncoder
from rd_tf.serving.query_signature import query_signature
from rd_tf.serving.recommend_signature import Search, recommend_signature
from rd_tf.serving.score_signature import score_signature
from rd_tf.serving.stored_ranker import StoredRanker

RECOMMEND, SCORE, QUERY = "serving_default", "score", "query"


class ServingModule(tf.Module):
    """What `tf.saved_model.save` is given.

    Args:
        stored: the ranker, with a row for the unknown user.
        lookups: the ids' numbers.
        search: finds the best items; a `tf.Module` where it has variables.
        max_k: longest list, at most num_items.
        exclude_recent: whether a request's recent items are kept out of its list.
        batching: how requests are put together; None answers each alone.

    Attributes:
        signatures: signature name -> `tf.function`.
    """

    def __init__(
        self,
        stored: StoredRanker,
        lookups: Lookups,
        search: Search,
        max_k: int,
        exclude_recent: bool,
        batching: Batching | None = None,
    ) -> None:
        super().__init__()
        self.stored, self.lookups, self.search = stored, lookups, search
        self.encode = QueryEncoder(stored, lookups)
        self.recommend = recommend_signature(
            self.encode, lookups, make_find(self.encode, stored, search, max_k, batching), max_k, exclude_recent
        )
        self.score = score_signature(self.encode, stored, lookups)
        self.query = query_signature(self.encode)

    def functions(self) -> dict[str, tf.types.experimental.PolymorphicFunction]:
        """Signature name -> function; what lists items has a name of its own and is the default."""
        return {RECOMMEND: self.recommend, "recommend": self.recommend, SCORE: self.score, QUERY: self.query}
