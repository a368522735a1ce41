"""The best items of a catalogue of any size, exactly."""

import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker, exclude_items
from rd_tf.models.table_ops import partial_top_k

# Up to here all scores of a request are in memory at once: 25.6 MB for 32 queries.
WHOLE_ROWS = 200_000
BLOCK_ROWS = 65_536


class ExactSearch:
    """Finds the best items by scoring all of them, a block of the table at a time where the catalogue is large.

    Args:
        whole_rows: the most rows of an item table that are scored at once.
        block_rows: rows of a block.
    """

    def __init__(self, whole_rows: int = WHOLE_ROWS, block_rows: int = BLOCK_ROWS) -> None:
        self._whole_rows = whole_rows
        self._block_rows = block_rows

    def __call__(
        self, ranker: SequenceRanker, query: tf.Tensor, exclude: tf.Tensor, k: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Lists the k best items of every query.

        Args:
            ranker: scores.
            query: `[batch, q] float32`.
            exclude: `[batch, m] int32`, items kept out of the list, 0 = none.
            k: length of a list, at most num_items.

        Returns:
            items `[batch, k] int32` and scores `[batch, k] float32`, best first, of equal scores the lower item first;
            item 0 with score -inf where fewer than k remain.
        """
        rows = ranker.num_items + 1
        if rows <= self._whole_rows:
            scores, items = partial_top_k(exclude_items(ranker.score_all(query), exclude), k)
        else:
            scores, items = self._in_blocks(ranker, query, exclude, k)
        return tf.where(tf.math.is_inf(scores), 0, items), scores

    def _in_blocks(
        self, ranker: SequenceRanker, query: tf.Tensor, exclude: tf.Tensor, k: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        rows, size = ranker.num_items + 1, min(self._block_rows, ranker.num_items + 1)
        k_of_block = min(k, size)
        batch = tf.shape(query)[0]
        column = tf.fill([batch, 1], -float("inf"))

        def body(begin: tf.Tensor, best: tf.Tensor, best_items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # The last block is moved back to be as large as the others; what was seen before does not count again.
            first = tf.minimum(begin, rows - size)
            block = ranker.score_block(query, first, size)
            block = tf.where(first + tf.range(size) >= begin, block, -float("inf"))
            place = exclude - first
            # Column 0 stands for excluded items of other blocks.
            place = tf.where((place >= 0) & (place < size), place + 1, 0)
            block = exclude_items(tf.concat([column, block], 1), place)[:, 1:]
            block.set_shape([None, size])
            found, columns = partial_top_k(block, k_of_block)
            # Earlier blocks stand first, so that of equal scores the lower item comes first.
            candidates = tf.concat([best, found], 1)
            items = tf.concat([best_items, columns + first], 1)
            best, order = tf.math.top_k(candidates, k)
            return begin + size, best, tf.gather(items, order, batch_dims=1)

        nothing = (tf.fill([batch, k], -float("inf")), tf.zeros([batch, k], tf.int32))
        shapes = (tf.TensorShape([]), tf.TensorShape([None, k]), tf.TensorShape([None, k]))
        _, scores, items = tf.while_loop(
            lambda begin, *_: begin < rows,
            body,
            (tf.constant(0), *nothing),
            shape_invariants=shapes,
            parallel_iterations=1,
        )
        return scores, items
