"""Requests of different clients answered by one pass over the item table."""

from typing import NamedTuple

import tensorflow as tf

from rd_tf.serving.query_encoder import QueryEncoder, last_known
from rd_tf.serving.recommend_signature import Find, Search
from rd_tf.serving.stored_ranker import StoredRanker

# Numbers of items that a row may bring along and still share a batch; a row is padded to them.
WIDTH = 256
# Batches that may wait; a request beyond them is answered UNAVAILABLE.
_MAX_ENQUEUED_BATCHES = 1000


class Batching(NamedTuple):
    """How requests are put together.

    Attributes:
        max_batch_size: most rows of a batch; a request of more rows is answered alone.
        timeout_micros: how long the first request of a batch waits for others, in microseconds.
        threads: batches that are computed at the same time.
        queue: a name that no other model of a process has: models with one name would share their batches.
    """

    max_batch_size: int
    timeout_micros: int
    threads: int
    queue: str


def make_find(
    encode: QueryEncoder, stored: StoredRanker, search: Search, max_k: int, batching: Batching | None
) -> Find:
    """Makes what finds the best items of users, one request at a time or several together.

    With `batching` TensorFlow's `BatchFunction` collects requests inside the graph, behind the lookups: every row has
    the same width by then, padded with 0, which is no item. So a row's answer depends on no other, whatever lists the
    requests bring, and a request that does not fit fails alone, before it meets others. The batching that
    tensorflow_model_server does before the graph (`--enable_batching`) can promise neither.

    Args:
        encode: gives queries.
        stored: scores.
        search: finds the best items.
        max_k: length of the lists.
        batching: None answers every request alone.

    Returns:
        A function of users `[b]`, recent `[b, n]` and exclude `[b, m]`, numbers, `int32`; 0 = unknown or none.
    """
    looks_back = stored.ranker.looks_back != "none"
    length = stored.ranker.sequence_length
    table = tf.TensorSpec([None, None], tf.int32)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int32), table, table])
    def find(users: tf.Tensor, recent: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        items, scores = search(stored.ranker, encode.encode(users, recent), exclude, max_k)
        return tf.ensure_shape(items, [None, max_k]), tf.ensure_shape(scores, [None, max_k])

    if batching is None:
        return find
    together = find.get_concrete_function()

    def find_batched(users: tf.Tensor, recent: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.shape(users)[0]
        # Of other rankers only the last L known items count.
        recent = recent if looks_back else last_known(recent, length)
        width = tf.maximum(tf.shape(recent)[1], tf.shape(exclude)[1])
        may_share = (rows > 0) & (rows <= batching.max_batch_size) & (width <= WIDTH)

        def share() -> list[tf.Tensor]:
            padded = [tf.pad(part, [[0, 0], [0, WIDTH - tf.shape(part)[1]]]) for part in (recent, exclude)]
            return tf.raw_ops.BatchFunction(
                in_tensors=[users, *padded],
                captured_tensors=together.captured_inputs,
                f=together,
                num_batch_threads=batching.threads,
                max_batch_size=batching.max_batch_size,
                batch_timeout_micros=batching.timeout_micros,
                max_enqueued_batches=_MAX_ENQUEUED_BATCHES,
                Tout=[tf.int32, tf.float32],
                shared_name=batching.queue,
            )

        items, scores = tf.cond(may_share, share, lambda: [*find(users, recent, exclude)])
        return tf.ensure_shape(items, [None, max_k]), tf.ensure_shape(scores, [None, max_k])

    return find_batched
