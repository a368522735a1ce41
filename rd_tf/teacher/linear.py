"""Teachers that are solved, not trained: linear models of items by items, over what a user has visited."""

import hashlib

import numpy as np
import scipy.linalg.lapack
import scipy.sparse

from rd_tf.data.windows import SplitData
from rd_tf.storage import InputError
from rd_tf.teacher.scoring import Teacher

# Rows of the matrix of items that are worked on at once.
_ROWS = 512


class LinearTeacher(Teacher):
    """Scores of a user: the sum of the rows that belong to the user's training items, each item once.

    Args:
        data: the dataset and its split.
        matrix: `[candidates, candidates] float32`, dense or sparse, over the items with a training row, in order.
        name: what the fingerprint tells of the teacher beside the data.
    """

    is_per_user = True

    def __init__(self, data: SplitData, matrix: np.ndarray | scipy.sparse.csr_array, name: str) -> None:
        super().__init__(data)
        self._matrix, self._visits = matrix, visits(data)
        self._items = np.flatnonzero(data.is_candidate)
        self.parameters = int(matrix.size if isinstance(matrix, np.ndarray) else matrix.nnz)
        self.fingerprint = solved_fingerprint(name, data)

    def user_scores(self, users: np.ndarray) -> np.ndarray:
        product = self._visits[users] @ self._matrix
        scores = np.full((len(users), self.data.num_items + 1), -np.inf, np.float32)
        scores[:, self._items] = product.toarray() if scipy.sparse.issparse(product) else product
        return scores


def visits(data: SplitData) -> scipy.sparse.csr_array:
    """`[users, candidates] float32`: 1 where the user has a training row with the item."""
    number = np.cumsum(data.is_candidate) - 1
    users, items = data.users, number[data.items]
    shape = data.num_users, int(data.is_candidate.sum())
    matrix = scipy.sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def ease_cost(num_items: int) -> tuple[int, float]:
    """Bytes and floating-point operations of `ease`: a Gram matrix in float32, and its inverse in its place."""
    return 4 * num_items * (num_items + 2 * _ROWS), float(num_items) ** 3


def ease(data: SplitData, l2: float = 200.0) -> LinearTeacher:
    """EASE: the linear autoencoder of items with a zero diagonal, in closed form.

    `B = I - P diag(P)^-1` with `P = (X^T X + l2 I)^-1`, X the visits. Source: Steck, WWW 2019.

    Args:
        data: the dataset and its split.
        l2: lambda, above 0; larger for denser data.

    Raises:
        InputError: the matrix of items does not fit into the memory that is free, or cannot be inverted.
    """
    matrix = visits(data)
    size = matrix.shape[1]
    needed, free = ease_cost(size)[0], free_bytes()
    if needed > free:
        raise InputError(
            f"the teacher ease needs {needed / 1e9:.1f} GB for {size:,} items, but {free / 1e9:.1f} GB are free; use "
            "the teacher item_knn, or a --min_item_users in rd_tf.prepare that leaves fewer items"
        )
    gram = np.zeros((size, size), np.float32)
    for begin in range(0, size, _ROWS):
        block = slice(begin, begin + _ROWS)
        gram[block] = (matrix[:, block].T @ matrix).toarray()
    gram[np.diag_indices(size)] += np.float32(l2)
    # LAPACK wants columns; of a symmetric matrix these are the rows. Both work in place.
    columns, failed = scipy.linalg.lapack.spotrf(gram.T, lower=1, overwrite_a=1, clean=0)
    if not failed:
        columns, failed = scipy.linalg.lapack.spotri(columns, lower=1, overwrite_c=1)
    if failed:
        raise InputError(f"the teacher ease cannot be solved with l2 = {l2:g}; use a larger one")
    # One half is the inverse.
    inverse = columns.T
    for begin in range(0, size, _ROWS):
        end = min(begin + _ROWS, size)
        corner = np.triu(inverse[begin:end, begin:end])
        inverse[begin:end, begin:end] = corner + np.triu(corner, 1).T
        inverse[end:, begin:end] = inverse[begin:end, end:].T
    inverse /= -np.diag(inverse).copy()
    inverse[np.diag_indices(size)] = 0.0
    return LinearTeacher(data, inverse, f"ease l2={l2:g}")


def free_bytes() -> int:
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2**62


def item_knn(data: SplitData, neighbours: int = 200, shrinkage: float = 10.0) -> LinearTeacher:
    """Item-to-item neighbours by cosine similarity of their users, for catalogues that `ease` is too large for.

    `similarity_ij = shared users / (sqrt(users_i users_j) + shrinkage)`; of each item its nearest neighbours are kept.
    Memory is 8 bytes a neighbour and item, and a block of the product.

    Args:
        data: the dataset and its split.
        neighbours: of an item, at least 1.
        shrinkage: at least 0; larger where items have few users.

    Raises:
        ValueError: an argument out of range.
    """
    if neighbours < 1 or shrinkage < 0:
        raise ValueError(f"neighbours must be at least 1, shrinkage at least 0; received {neighbours}, {shrinkage}")
    matrix = visits(data)
    norms = np.sqrt(np.asarray(matrix.sum(0)))
    # Rows of an item are contiguous in the transpose.
    by_item, blocks = matrix.T.tocsr(), []
    for begin in range(0, matrix.shape[1], _ROWS):
        shared = (by_item[begin : begin + _ROWS] @ matrix).tocsr()
        # So that of equal items those with the lower numbers are kept.
        shared.sort_indices()
        rows = np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
        shared.data /= norms[begin + rows] * norms[shared.indices] + np.float32(shrinkage)
        shared.data[shared.indices == begin + rows] = 0.0
        # The place of each entry among those of its row, best first.
        order = np.lexsort((-shared.data, rows))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - shared.indptr[rows[order]]
        shared.data[place >= neighbours] = 0.0
        shared.eliminate_zeros()
        blocks.append(shared)
    similarity = scipy.sparse.csr_array(scipy.sparse.vstack(blocks))
    return LinearTeacher(data, similarity, f"item_knn neighbours={neighbours} shrinkage={shrinkage:g}")


class PopularityTeacher(Teacher):
    """The number of training rows of an item, the same for every user.

    Args:
        data: the dataset and its split.
    """

    is_per_user = True

    def __init__(self, data: SplitData) -> None:
        super().__init__(data)
        counts = np.bincount(data.items, minlength=data.num_items + 1).astype(np.float32)
        self._scores = np.where(data.is_candidate, counts, -np.inf)
        self.parameters = int(data.is_candidate.sum())
        self.fingerprint = solved_fingerprint("popularity", data)

    def user_scores(self, users: np.ndarray) -> np.ndarray:
        return np.tile(self._scores, (len(users), 1))


def solved_fingerprint(name: str, data: SplitData) -> str:
    """SHA-256 (hex) that says which teacher is solved from which training rows."""
    return hashlib.sha256(f"{name}|{data.fingerprint}|{data.name}".encode()).hexdigest()
