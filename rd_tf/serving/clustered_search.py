"""The best items of a large catalogue, nearly always, from a few cells of it."""

import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.cells import Cells


class ClusteredSearch(tf.Module):
    """Searches the cells whose centroids score highest, and scores the items in them exactly.

    What it costs grows with cells + probes * largest cell in place of items. An item in another cell is missed, so
    lists may differ from the exact ones; the share that is found is measured at export.

    Args:
        cells: the items by cell.
        probes: cells that are searched for a query.
    """

    def __init__(self, cells: Cells, probes: int) -> None:
        super().__init__()
        self._probes = min(probes, len(cells.centroids))
        self._largest = cells.largest
        # Behind the last cell a full one of padding, so that any cell can be read to the largest one's length.
        padded = tf.pad(tf.constant(cells.items), [[0, cells.largest]])
        self._items = tf.Variable(padded, trainable=False)
        self._offsets = tf.Variable(cells.offsets, trainable=False)
        self._centroids = tf.Variable(cells.centroids, trainable=False)

    def __call__(
        self, ranker: SequenceRanker, query: tf.Tensor, exclude: tf.Tensor, k: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Lists k good items of every query; arguments and returns as of `ExactSearch`."""
        with_one = tf.concat([query, tf.ones_like(query[:, :1])], 1)
        cells = tf.math.top_k(tf.matmul(with_one, self._centroids, transpose_b=True), self._probes).indices
        inside_cell = tf.range(self._largest)
        # Read, not gathered from, see `CompactTable`.
        all_items, offsets = tf.convert_to_tensor(self._items), tf.convert_to_tensor(self._offsets)

        def probe(cell: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            begin, end = tf.gather(offsets, cell), tf.gather(offsets, cell + 1)
            place = begin[:, tf.newaxis] + inside_cell
            items = tf.where(place < end[:, tf.newaxis], tf.gather(all_items, place), 0)
            return items, ranker.score(query, items)

        # One cell of every query at a time: all at once would gather probes times the vectors.
        signature = (
            tf.TensorSpec([None, self._largest], tf.int32),
            tf.TensorSpec([None, self._largest], tf.float32),
        )
        items, scores = tf.map_fn(probe, tf.transpose(cells), parallel_iterations=1, fn_output_signature=signature)
        width = self._probes * self._largest
        items, scores = (tf.reshape(tf.transpose(part, [1, 0, 2]), [-1, width]) for part in (items, scores))
        scores = tf.where(is_among(items, exclude), -float("inf"), scores)
        short = max(0, k - width)
        scores = tf.pad(scores, [[0, 0], [0, short]], constant_values=-float("inf"))
        items = tf.pad(items, [[0, 0], [0, short]])
        best, order = tf.math.top_k(scores, k)
        return tf.where(tf.math.is_inf(best), 0, tf.gather(items, order, batch_dims=1)), best


def is_among(items: tf.Tensor, some: tf.Tensor) -> tf.Tensor:
    """Which items stand in the same row of `some`, or are 0.

    Args:
        items: `[batch, n] int32`.
        some: `[batch, m] int32`, any m.

    Returns:
        `[batch, n] bool`.
    """
    # Sorting and searching takes (m + n) log m steps, comparing every pair would take m n.
    ordered = tf.sort(tf.pad(some, [[0, 0], [1, 0]]), axis=1)
    place = tf.minimum(tf.searchsorted(ordered, items), tf.shape(ordered)[1] - 1)
    return tf.gather(ordered, place, batch_dims=1) == items
