"""The signature that lists items: `serving_default`, also called `recommend`."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.equal_rows import equal_rows
from rd_tf.serving.lookups import Lookups
from rd_tf.serving.query_encoder import QueryEncoder

# What stands beside no item; infinities are not JSON.
NO_SCORE = tf.float32.min
# (ranker, query [b, q], exclude [b, m], k) -> items [b, k] int32 and scores [b, k] float32.
Search = Callable[[SequenceRanker, tf.Tensor, tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]
# (users [b], recent [b, n], exclude [b, m], all int32) -> items [b, max_k] int32 and scores [b, max_k] float32.
Find = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def recommend_signature(encode: QueryEncoder, lookups: Lookups, find: Find, max_k: int, exclude_recent: bool) -> Any:
    """Makes the signature.

    It takes `user_id` `[b]`, `recent_items` `[b, n]` (oldest first) and `exclude_items` `[b, m]`, all ids, and `k` `[b]
    int32`; it returns `items` `[b, k_max]`, ids, and `scores` `[b, k_max] float32`, best first. k_max is the largest k
    of the batch, at most `max_k`. Behind a row's own k, and where it runs out of items, stand "" (or 0) and the lowest
    finite float32. Nothing but k_max depends on other rows.

    Args:
        encode: knows the ids' numbers.
        lookups: gives raw ids.
        find: finds the best items.
        max_k: longest list, at most num_items.
        exclude_recent: whether all of `recent_items` are kept out of the list.

    Returns:
        A `tf.function` with that input signature.
    """

    @tf.function(
        autograph=False,
        input_signature=[
            *encode.inputs,
            tf.TensorSpec([None, None], lookups.id_dtype, name="exclude_items"),
            tf.TensorSpec([None], tf.int32, name="k"),
        ],
    )
    def recommend(
        user_id: tf.Tensor, recent_items: tf.Tensor, exclude_items: tf.Tensor, k: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        users, recent = encode.numbers(user_id, recent_items)
        exclude = lookups.items(equal_rows(exclude_items, user_id))
        if exclude_recent:
            exclude = tf.concat([exclude, recent], 1)
        wanted = tf.clip_by_value(equal_rows(k[:, tf.newaxis], user_id), 0, max_k)
        # A request that is refused must be so before it shares a batch with others.
        with tf.control_dependencies([exclude, wanted]):
            users = tf.identity(users)
        items, scores = find(users, recent, exclude)
        longest = tf.reduce_max(tf.pad(wanted, [[0, 1], [0, 0]]))
        items, scores = items[:, :longest], scores[:, :longest]
        items = tf.where(tf.range(longest) < wanted, items, 0)
        return {"items": lookups.names(items), "scores": tf.where(items == 0, NO_SCORE, scores)}

    return recommend
