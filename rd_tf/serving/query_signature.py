"""The signature `query`: vectors for a nearest-neighbour index outside of the model."""

from typing import Any

import tensorflow as tf

from rd_tf.serving.query_encoder import QueryEncoder


def query_signature(encode: QueryEncoder) -> Any:
    """Makes the signature.

    It takes `user_id` `[b]` and `recent_items` `[b, n]` (oldest first), ids, and returns `query` `[b, q + 1] float32`
    whose last number is 1: an item's score is the inner product with its row of `item_table.npy`, whose last number is
    the item's bias.

    Args:
        encode: gives queries.

    Returns:
        A `tf.function` with that input signature.
    """

    @tf.function(autograph=False, input_signature=encode.inputs)
    def query(user_id: tf.Tensor, recent_items: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded, _ = encode(user_id, recent_items)
        return {"query": tf.concat([encoded, tf.ones_like(encoded[:, :1])], 1)}

    return query
