"""From the raw ids of a request to query vectors."""

import tensorflow as tf

from rd_tf.models.ranker import Histories
from rd_tf.serving.equal_rows import equal_rows
from rd_tf.serving.lookups import Lookups
from rd_tf.serving.stored_ranker import StoredRanker


class QueryEncoder(tf.Module):
    """Encodes requests; one function of the graph, which all signatures call.

    Unknown items and none vanish from the history as if they had not been there; the last L of the rest are the
    sequence, and all of them the history of a ranker that looks back on one.

    Args:
        stored: the ranker, with a row for the unknown user, the last one.
        lookups: the ids' numbers.

    Attributes:
        inputs: specs of `user_id` `[b]` and `recent_items` `[b, n]`, with which every signature begins.
        encode: from users `[b] int32` and their items `[b, n] int32`, numbers, to queries `[b, q] float32`.
    """

    def __init__(self, stored: StoredRanker, lookups: Lookups) -> None:
        super().__init__()
        self.inputs = (
            tf.TensorSpec([None], lookups.id_dtype, name="user_id"),
            tf.TensorSpec([None, None], lookups.id_dtype, name="recent_items"),
        )

        self._lookups = lookups

        @tf.function(
            autograph=False, input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)]
        )
        def encode(users: tf.Tensor, recent: tf.Tensor) -> tf.Tensor:
            with stored.dense_weights_in_use() as ranker:
                history = known_items(recent) if ranker.looks_back != "none" else None
                query = ranker.encode(users, last_known(recent, ranker.sequence_length), history=history)
            return tf.cast(query, tf.float32)

        self.encode = encode

    def __call__(self, user_id: tf.Tensor, recent_items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes `user_id` `[b]` and `recent_items` `[b, n]`, ids, the items oldest first.

        Returns:
            queries `[b, q] float32`, and the items' numbers `[b, n] int32`, 0 = unknown or none.
        """
        users, recent = self.numbers(user_id, recent_items)
        return self.encode(users, recent), recent

    def numbers(self, user_id: tf.Tensor, recent_items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The numbers of the users `[b] int32` and of the items `[b, n] int32`, 0 = unknown or none."""
        return self._lookups.users(user_id), self._lookups.items(equal_rows(recent_items, user_id))


def last_known(items: tf.Tensor, length: int) -> tf.Tensor:
    """The last known items of every row, in order.

    Args:
        items: `[batch, n] int32`, 0 = unknown or none, anywhere; any n.
        length: L.

    Returns:
        `[batch, L] int32`, padded with 0 on the left.
    """
    padded = tf.pad(items, [[0, 0], [length, 0]])
    place = tf.where(padded > 0, tf.range(tf.shape(padded)[1]), -1)
    latest_first = tf.math.top_k(place, length).indices
    return tf.gather(padded, tf.reverse(latest_first, [1]), batch_dims=1)


def known_items(items: tf.Tensor) -> Histories:
    """The known items of every row as histories of the rows' queries.

    Args:
        items: `[batch, n] int32`, 0 = unknown or none, anywhere; any n.
    """
    is_known = items > 0
    return Histories(tf.boolean_mask(items, is_known), tf.cast(tf.where(is_known)[:, 0], tf.int32))
