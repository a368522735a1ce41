"""Finds the best items of a query: exactly, or nearly always in a few cells of a large catalogue."""

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker, exclude_items, partial_top_k

# (ranker, query [b, q], exclude [b, m], k) -> items [b, k] int32 and scores [b, k] float32.
Search = Callable[[SequenceRanker, tf.Tensor, tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]
# Item tables of up to so many rows are scored at once, which takes 25.6 MB for 32 queries; larger ones in blocks.
WHOLE_ROWS, BLOCK_ROWS = 200_000, 65_536
# Of k-means: items a cell that it looks at, its rounds, and vectors that are compared with all centroids at once.
_SAMPLE, _ROUNDS, _BLOCK = 50, 10, 16_384
# Largest size of a cell, in mean sizes: every cell is padded to the largest one when it is searched.
_LARGEST = 2.0


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
            # The last block begins earlier, to be as large as the others; rows that were seen before do not count.
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


@dataclasses.dataclass(frozen=True)
class Cells:
    """Items by cell.

    Attributes:
        centroids: `[cells, q + 1] float32`, the mean of the cell's vectors, their bias last.
        items: `[num_items] int32`, the items of a cell beside each other, ascending.
        offsets: `[cells + 1] int32`: those of cell c are `items[offsets[c]:offsets[c + 1]]`, never none.
    """

    centroids: np.ndarray
    items: np.ndarray
    offsets: np.ndarray

    @property
    def largest(self) -> int:
        return int(np.diff(self.offsets).max())


def make_cells(vectors: np.ndarray, clusters: int, seed: int = 0) -> Cells:
    """Puts items with near vectors into a cell.

    k-means runs on 50 items a cell; then every item goes to its nearest centroid, and a cell of more than twice the
    mean size is cut in pieces. There are about as many cells as asked for: empty ones are left out, cut ones added.

    Args:
        vectors: `[num_items, q + 1] float32`, the vector of item i + 1 with its bias last.
        clusters: how many cells, at most num_items.
        seed: of the sample and of the first centroids.
    """
    # Slow to import, for a kind of search that few exports have.
    from scipy.cluster.vq import kmeans2

    random = np.random.default_rng(seed)
    sample = vectors
    if len(vectors) > _SAMPLE * clusters:
        sample = vectors[np.sort(random.choice(len(vectors), _SAMPLE * clusters, replace=False))]
    start = sample[np.sort(random.choice(len(sample), clusters, replace=False))]
    with warnings.catch_warnings():
        # SciPy warns of empty clusters, which are left out below.
        warnings.simplefilter("ignore", UserWarning)
        centroids, _ = kmeans2(sample, start, iter=_ROUNDS, minit="matrix", check_finite=False)
    nearest = _nearest(vectors, centroids.astype(np.float32))
    groups = _cut_large_cells(nearest, vectors, int(np.ceil(_LARGEST * len(vectors) / clusters)))
    return Cells(
        np.stack([vectors[group].mean(axis=0) for group in groups]).astype(np.float32),
        np.concatenate(groups).astype(np.int32) + 1,
        np.cumsum([0, *map(len, groups)]).astype(np.int32),
    )


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    half_norms = np.square(centroids).sum(axis=1) / 2
    blocks = [vectors[begin : begin + _BLOCK] for begin in range(0, len(vectors), _BLOCK)]
    return np.concatenate([np.argmax(block @ centroids.T - half_norms, axis=1) for block in blocks])


def _cut_large_cells(cell_of: np.ndarray, vectors: np.ndarray, largest: int) -> list[np.ndarray]:
    order = np.argsort(cell_of, kind="stable")
    groups = [group for group in np.split(order, np.flatnonzero(np.diff(cell_of[order])) + 1) if len(group)]
    cut = []
    for group in groups:
        if len(group) <= largest:
            cut.append(group)
            continue
        # The cell is cut along the direction in which it is longest, so that a piece's items are neighbours too.
        spread = vectors[group] - vectors[group].mean(axis=0)
        direction = spread[np.argmax(np.square(spread).sum(axis=1))]
        along = group[np.argsort(spread @ direction, kind="stable")]
        cut += [np.sort(piece) for piece in np.array_split(along, -(-len(group) // largest))]
    return cut


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
        # The last cell is followed by padding, so that any cell can be read to the largest one's length.
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
        # The variables are read as a whole and then gathered from, see `CompactTable`.
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
    # This takes (m + n) log m steps; comparing every pair would take m n.
    ordered = tf.sort(tf.pad(some, [[0, 0], [1, 0]]), axis=1)
    place = tf.minimum(tf.searchsorted(ordered, items), tf.shape(ordered)[1] - 1)
    return tf.gather(ordered, place, batch_dims=1) == items
