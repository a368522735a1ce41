"""Item vectors in cells, by k-means."""

import dataclasses
import warnings

import numpy as np
from scipy.cluster.vq import kmeans2

_SAMPLE = 50
_ROUNDS = 10
_BLOCK = 16_384
# A cell is padded to the largest one when it is searched, so none may be much larger than the mean.
_LARGEST = 2.0


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
    random = np.random.default_rng(seed)
    sample = vectors
    if len(vectors) > _SAMPLE * clusters:
        sample = vectors[np.sort(random.choice(len(vectors), _SAMPLE * clusters, replace=False))]
    start = sample[np.sort(random.choice(len(sample), clusters, replace=False))]
    with warnings.catch_warnings():
        # Of an empty cluster, which is left out below.
        warnings.simplefilter("ignore", UserWarning)
        centroids, _ = kmeans2(sample, start, iter=_ROUNDS, minit="matrix", check_finite=False)
    nearest = _nearest(vectors, centroids.astype(np.float32))
    groups = _cut(nearest, vectors, int(np.ceil(_LARGEST * len(vectors) / clusters)))
    return Cells(
        np.stack([vectors[group].mean(axis=0) for group in groups]).astype(np.float32),
        np.concatenate(groups).astype(np.int32) + 1,
        np.cumsum([0, *map(len, groups)]).astype(np.int32),
    )


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    half_norms = np.square(centroids).sum(axis=1) / 2
    blocks = [vectors[begin : begin + _BLOCK] for begin in range(0, len(vectors), _BLOCK)]
    return np.concatenate([np.argmax(block @ centroids.T - half_norms, axis=1) for block in blocks])


def _cut(cell_of: np.ndarray, vectors: np.ndarray, largest: int) -> list[np.ndarray]:
    order = np.argsort(cell_of, kind="stable")
    groups = [group for group in np.split(order, np.flatnonzero(np.diff(cell_of[order])) + 1) if len(group)]
    cut = []
    for group in groups:
        if len(group) <= largest:
            cut.append(group)
            continue
        # Along the direction in which the cell is longest, so that the pieces are neighbours too.
        spread = vectors[group] - vectors[group].mean(axis=0)
        direction = spread[np.argmax(np.square(spread).sum(axis=1))]
        along = group[np.argsort(spread @ direction, kind="stable")]
        cut += [np.sort(piece) for piece in np.array_split(along, -(-len(group) // largest))]
    return cut
