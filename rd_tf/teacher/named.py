"""Teachers as a command names them: run directories and solved ones (EASE, item-kNN, popularity), alone or fused."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.linalg.lapack
import scipy.sparse

from rd_tf import run_directory
from rd_tf.data.windows import Dataset, SplitData
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.flag_definitions import CHOOSING_SPLITS, SOLVED_TEACHERS
from rd_tf.runtime import free_bytes
from rd_tf.storage import InputError
from rd_tf.teacher.scoring import FusedTeacher, RankerTeacher, Teacher, evaluate_teacher, fused_fingerprint

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


def ease_shortage(num_items: int) -> str:
    """Why `ease` cannot be solved for so many items, as the end of a sentence; empty where its memory is free."""
    needed, free = ease_cost(num_items)[0], free_bytes()
    return f"{needed / 1e9:.1f} GB for {num_items:,} items, but {free / 1e9:.1f} GB are free" if needed > free else ""


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
    if shortage := ease_shortage(size):
        raise InputError(
            f"the teacher ease needs {shortage}; use the teacher item_knn, or a --min_item_users in rd_tf.prepare that "
            "leaves fewer items"
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


# Values of ease's lambda that are tried first; the search goes on beyond an end that is the best.
EASE_L2 = (100.0, 200.0, 400.0)
_LEAST_L2, _LARGEST_L2 = 1.0, 1e5
# Shares that a search of fusion weights gives to one teacher more.
_SHARES = (0.15, 0.3, 0.5, 0.7, 0.85)
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class TeacherNames:
    """What a command says of its teachers.

    Attributes:
        names: run directories and names in `SOLVED_TEACHERS`.
        fusion: "zscore" or "rrf"; of one teacher it says nothing.
        weights: one a teacher; none for equal ones.
        ease_l2: lambda of `ease`; 0 for the best one on the validation split.
    """

    names: tuple[str, ...]
    fusion: str = "zscore"
    weights: tuple[float, ...] = ()
    ease_l2: float = 0.0

    @classmethod
    def parse(
        cls, teacher: str, fusion: str = "zscore", weights: Sequence[str] = (), ease_l2: float = 0.0
    ) -> "TeacherNames":
        """Reads --teacher and --fusion_weights.

        Raises:
            InputError: a name stands twice, or the weights are no numbers or don't fit.
        """
        names = tuple(name.strip() for name in teacher.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise InputError(f"--teacher={teacher}: each teacher stands there once, with commas between them")
        try:
            numbers = tuple(float(text) for text in weights)
        except ValueError:
            numbers = (-1.0,)
        is_finite = all(0 <= number < float("inf") for number in numbers)
        if numbers and (len(numbers) != len(names) or not is_finite or not sum(numbers) > 0):
            raise InputError(
                f"--fusion_weights={','.join(weights)}: it takes {len(names)} numbers from 0, one a teacher, not all 0"
            )
        return cls(names, fusion, numbers, ease_l2)

    def fingerprint(self, data: SplitData) -> str:
        """The fingerprint of what `make_teacher` makes, without making it.

        Raises:
            InputError: a run cannot be used, or is of another dataset or split.
        """
        parts = []
        for name in self.names:
            if name in SOLVED_TEACHERS:
                # Whatever lambda the search finds, it finds it from these data.
                tuned = f" l2={self.ease_l2:g}" if name == "ease" else ""
                parts.append(solved_fingerprint(f"named {name}{tuned}", data))
            else:
                parts.append(_check_run(name, data)["model"]["fingerprint"])
        if len(parts) == 1:
            return parts[0]
        return fused_fingerprint(self.fusion, parts, self.weights or (1.0,) * len(parts))


def make_teacher(named: TeacherNames, data: SplitData, log: Log = print) -> Teacher:
    """Loads or solves teachers and fuses them.

    Args:
        named: the teachers.
        data: the dataset and its split.
        log: told what is solved, and what it takes.

    Returns:
        The teacher, whose fingerprint is `named.fingerprint(data)`.

    Raises:
        InputError: a run cannot be used, or a teacher does not fit into memory.
    """
    fingerprint = named.fingerprint(data)
    teachers = [_make_one(name, named, data, log) for name in named.names]
    teacher = teachers[0]
    if len(teachers) > 1:
        teacher = FusedTeacher(teachers, named.fusion, named.weights)
    teacher.fingerprint = fingerprint
    return teacher


def _make_one(name: str, named: TeacherNames, data: SplitData, log: Log) -> Teacher:
    if name == "popularity":
        return PopularityTeacher(data)
    if name == "item_knn":
        return item_knn(data)
    if name == "ease":
        l2 = named.ease_l2 or choose_ease_l2(data, log)
        return _solve_ease(data, l2, log)
    _check_run(name, data)
    from rd_tf.models.registry import load_model

    return RankerTeacher(load_model(name, "teacher"), data)


def _solve_ease(data: SplitData, l2: float, log: Log) -> Teacher:
    size = int(data.is_candidate.sum())
    needed, operations = ease_cost(size)
    log(f"ease, l2 = {l2:g}: {size:,} items, {needed / 1e9:.1f} GB, {operations / 1e12:.1f} TFLOP")
    begin = time.monotonic()
    teacher = ease(data, l2)
    log(f"ease, l2 = {l2:g}: solved in {time.monotonic() - begin:.0f} s")
    return teacher


def choose_ease_l2(data: SplitData, log: Log = print) -> float:
    """The lambda of `ease` with the best MAP on a split for choosing: that of the data or else the validation split.

    Args:
        data: the dataset.
        log: told of every trial.
    """
    protocol, validation = data.protocol, data
    if protocol.part not in CHOOSING_SPLITS:
        validation = Dataset(data.interactions).split("validation", protocol.by, protocol.seen_items)
    evaluator, found = Evaluator(validation, 1), {}

    def quality(l2: float) -> float:
        if l2 not in found:
            found[l2] = evaluate_teacher(_solve_ease(validation, l2, lambda line: None), evaluator=evaluator).metrics[
                "map"
            ]
            log(f"ease, l2 = {l2:g}: {validation.name} MAP {found[l2]:.4f}")
        return found[l2]

    best = max(EASE_L2, key=quality)
    while best in (min(found), max(found)) and _LEAST_L2 < best < _LARGEST_L2:
        further = best / 2 if best == min(found) else best * 2
        if quality(further) <= quality(best):
            break
        best = further
    return best


def choose_weights(
    teachers: Sequence[Teacher], fusion: str, evaluator: Evaluator, log: Log = print, alone: Sequence[float] = ()
) -> tuple[tuple[float, ...], float]:
    """Weights of a fusion with the best MAP: teachers are added one by one, the best first, as long as MAP rises.

    Args:
        teachers: of the same data, at least one.
        fusion: "zscore" or "rrf".
        evaluator: of the data.
        log: told of every trial that is better than those before.
        alone: the teachers' own MAP, where they are known.

    Returns:
        The weights, which sum to 1 (0 for a teacher that does not help), and the fusion's MAP.
    """
    alone = alone or [evaluate_teacher(teacher, evaluator=evaluator).metrics["map"] for teacher in teachers]
    order = np.argsort(-np.array(alone), kind="stable")
    weights, best = np.zeros(len(teachers)), alone[order[0]]
    weights[order[0]] = 1.0
    for number in order[1:]:
        before = weights
        for share in _SHARES:
            tried = (1 - share) * before
            tried[number] = share
            fused = FusedTeacher(teachers, fusion, tried.tolist())
            found = evaluate_teacher(fused, evaluator=evaluator).metrics["map"]
            if found > best:
                weights, best = tried, found
                log(f"{fusion} {', '.join(f'{weight:.2f}' for weight in weights)}: MAP {best:.4f}")
            elif found < best and (weights != before).any():
                # MAP rises and falls once.
                break
    return tuple(round(float(weight), 4) for weight in weights), best


def _check_run(name: str, data: SplitData) -> dict:  # type: ignore[type-arg]
    if not Path(name).is_dir():
        raise InputError(
            f"--teacher={name} is neither a directory nor one of {', '.join(SOLVED_TEACHERS)}; name a "
            "teacher's run directory"
        )
    manifest = run_directory.load_run_manifest(name, "teacher")
    if manifest["dataset"]["fingerprint"] != data.fingerprint or not data.protocol.trains_as(manifest["split"]):
        raise InputError(
            f"--teacher={name} was trained on dataset {manifest['dataset']['fingerprint'][:16]}, split "
            f"{manifest['split']}, but these data are dataset {data.fingerprint[:16]}, split {data.name}; use a "
            "teacher of the same"
        )
    return manifest
