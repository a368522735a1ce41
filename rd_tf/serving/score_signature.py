"""The signature `score`: scores of items that the caller names."""

from typing import Any

import tensorflow as tf

from rd_tf.serving.equal_rows import equal_rows
from rd_tf.serving.lookups import Lookups
from rd_tf.serving.query_encoder import QueryEncoder
from rd_tf.serving.recommend_signature import NO_SCORE
from rd_tf.serving.stored_ranker import StoredRanker


def score_signature(encode: QueryEncoder, stored: StoredRanker, lookups: Lookups) -> Any:
    """Makes the signature.

    It takes `user_id` `[b]`, `recent_items` `[b, n]` (oldest first) and `candidates` `[b, c]`, all ids; it returns
    `scores` `[b, c] float32` and `known` `[b, c] bool`. An unknown candidate gets the lowest finite float32.

    Args:
        encode: gives queries.
        stored: scores.
        lookups: the ids' numbers.

    Returns:
        A `tf.function` with that input signature.
    """
    candidates_spec = tf.TensorSpec([None, None], lookups.id_dtype, name="candidates")

    @tf.function(autograph=False, input_signature=[*encode.inputs, candidates_spec])
    def score(user_id: tf.Tensor, recent_items: tf.Tensor, candidates: tf.Tensor) -> dict[str, tf.Tensor]:
        items = lookups.items(equal_rows(candidates, user_id))
        query, _ = encode(user_id, recent_items)
        scores = stored.ranker.score(query, items)
        return {"scores": tf.where(items > 0, scores, NO_SCORE), "known": items > 0}

    return score
