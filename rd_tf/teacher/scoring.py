"""Teachers by their scores: anything that scores the whole catalogue, alone or fused, for windows and for users."""

import abc
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rd_tf.data.teacher_lists import (
    CacheKey,
    TeacherCache,
    check_k,
    check_mask,
    empty_lists,
    half_precision,
    lists_manifest,
    masked_items,
)
from rd_tf.data.windows import SplitData, Windows
from rd_tf.evaluation.evaluator import Evaluation, Evaluator
from rd_tf.evaluation.ranks import FrozenScores, block_rows
from rd_tf.runtime import blocks_at_once, compute_ahead, progress_bar
from rd_tf.storage import InputError
from rd_tf.teacher.top_k import best_items

if TYPE_CHECKING:
    from rd_tf.models.ranker import SequenceRanker

FUSIONS = ("zscore", "rrf")
# Of reciprocal rank fusion; Cormack, Clarke & Büttcher, SIGIR 2009.
_RRF_CONSTANT = 60
# Places of a list that reciprocal rank fusion looks at; those behind would get next to nothing.
_RRF_PLACES = 1000


class Teacher(abc.ABC):
    """Scores all items for training windows and for users who have come to the end of their training items.

    Args:
        data: the dataset and its split.

    Attributes:
        is_per_user: whether all windows of a user have the same scores.
        fingerprint: SHA-256 (hex) that says which teacher this is.
        parameters: numbers that it holds to score with; 0 where nobody has counted them.
    """

    is_per_user = False
    fingerprint: str
    parameters = 0

    def __init__(self, data: SplitData) -> None:
        self.data = data

    @abc.abstractmethod
    def user_scores(self, users: np.ndarray) -> np.ndarray:
        """Scores for what comes after some users' training items.

        Args:
            users: `[n] int32`.

        Returns:
            `[n, num_items + 1] float32`; -inf for the padding and for items without a training row.
        """

    def window_scores(self, windows: Windows, rows: np.ndarray) -> np.ndarray:
        """Scores for the targets of some windows.

        Args:
            windows: of the data.
            rows: `[n]`, which.

        Returns:
            As `user_scores`.
        """
        users, place = np.unique(windows.users[rows], return_inverse=True)
        return self.user_scores(users)[place]


class RankerTeacher(Teacher):
    """A trained ranker, asked with its own L, whatever the windows' is.

    Args:
        model: the ranker.
        data: the dataset and its split.
    """

    def __init__(self, model: "SequenceRanker", data: SplitData) -> None:
        from rd_tf.models.registry import weights_fingerprint

        super().__init__(data)
        if (model.num_users, model.num_items) != (data.num_users, data.num_items):
            raise ValueError(
                f"the teacher must have the {data.num_users} users and {data.num_items} items of the data; "
                f"received {model.num_users} and {model.num_items}"
            )
        self.model = model
        self.fingerprint = weights_fingerprint(model)
        self.parameters = model.count_params()

    # Not at once: whoever evaluates a teacher may train it on meanwhile.
    @functools.cached_property
    def _scores(self):  # type: ignore[no-untyped-def]
        return FrozenScores(self.model).freeze(self.data.is_candidate)

    def user_scores(self, users: np.ndarray) -> np.ndarray:
        model, data = self.model, self.data
        sequences = data.seen.last(users, model.sequence_length)
        return self._scores(users.astype(np.int32), sequences, data.histories(model, users))

    def window_scores(self, windows: Windows, rows: np.ndarray) -> np.ndarray:
        model, seen = self.model, self.data.seen
        history = seen.window_histories(windows, rows, model.looks_back) if model.has_history else None
        if windows.sequences.shape[1] == model.sequence_length:
            sequences = windows.sequences[rows]
        else:
            sequences = seen.before(windows, rows, model.sequence_length)
        return self._scores(windows.users[rows], sequences, history)


class FusedTeacher(Teacher):
    """Several teachers as one.

    "zscore" adds the teachers' scores, each row of each brought to mean 0 and standard deviation 1 over the catalogue;
    "rrf", reciprocal rank fusion, adds 1 / (60 + rank). Source: Cormack, Clarke & Büttcher, SIGIR 2009.

    Args:
        teachers: at least one, all of the same data.
        fusion: "zscore" or "rrf".
        weights: one a teacher, at least 0 and not all 0.

    Raises:
        ValueError: the fusion is unknown, or the weights don't fit.
    """

    def __init__(self, teachers: Sequence[Teacher], fusion: str = "zscore", weights: Sequence[float] = ()) -> None:
        super().__init__(teachers[0].data)
        weights = list(weights) or [1.0] * len(teachers)
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}; received {fusion!r}")
        if len(weights) != len(teachers) or min(weights) < 0 or not sum(weights) > 0:
            raise ValueError(
                f"weights must be {len(teachers)} numbers from 0, one a teacher, and not all 0; received {weights}"
            )
        self.teachers, self.fusion, self.weights = tuple(teachers), fusion, tuple(weights)
        self.is_per_user = all(teacher.is_per_user for teacher in teachers)
        self.parameters = sum(teacher.parameters for teacher in teachers)
        self.fingerprint = fused_fingerprint(fusion, [teacher.fingerprint for teacher in teachers], weights)

    def user_scores(self, users: np.ndarray) -> np.ndarray:
        return self._fuse(len(users), lambda teacher: teacher.user_scores(users))

    def window_scores(self, windows: Windows, rows: np.ndarray) -> np.ndarray:
        return self._fuse(len(rows), lambda teacher: teacher.window_scores(windows, rows))

    def _fuse(self, rows: int, scores: Callable[[Teacher], np.ndarray]) -> np.ndarray:
        is_candidate = self.data.is_candidate
        fused = np.zeros((rows, len(is_candidate)), np.float32)
        for teacher, weight in zip(self.teachers, self.weights, strict=True):
            if weight:
                fused += np.float32(weight) * standardise(scores(teacher), is_candidate, self.fusion)
        fused[:, ~is_candidate] = -np.inf
        return fused


def fused_fingerprint(fusion: str, fingerprints: Sequence[str], weights: Sequence[float]) -> str:
    """SHA-256 (hex) that says which teachers are fused, and how."""
    parts = (f"{fingerprint}*{weight:g}" for fingerprint, weight in zip(fingerprints, weights, strict=True))
    return hashlib.sha256("+".join([fusion, *parts]).encode()).hexdigest()


def standardise(scores: np.ndarray, is_candidate: np.ndarray, fusion: str) -> np.ndarray:
    """Scores that can be added to another teacher's: `[n, num_items + 1] float32`, 0 where there is no candidate.

    Args:
        scores: `[n, num_items + 1] float32`.
        is_candidate: `[num_items + 1] bool`.
        fusion: of `FUSIONS`.
    """
    if fusion == "zscore":
        finite = np.where(is_candidate, scores, 0.0)
        count = np.float32(is_candidate.sum())
        mean = finite.sum(1, keepdims=True) / count
        finite -= mean
        finite[:, ~is_candidate] = 0.0
        deviation = np.sqrt(np.einsum("ij,ij->i", finite, finite)[:, None] / count)
        return finite / np.maximum(deviation, np.finfo(np.float32).tiny)
    places = min(_RRF_PLACES, int(is_candidate.sum()))
    items = best_items(scores, np.zeros((len(scores), 1), np.int32), places)[0]
    fused = np.zeros(scores.shape, np.float32)
    gains = 1.0 / (_RRF_CONSTANT + np.arange(1, places + 1, dtype=np.float32))
    np.put_along_axis(fused, items, np.broadcast_to(gains, items.shape), 1)
    fused[:, 0] = 0.0
    return fused


def lists_of(
    teacher: Teacher,
    windows: Windows,
    k: int = 50,
    mask: str = "seen",
    block_size: int = 1024,
) -> TeacherCache:
    """Lists a teacher's best K items, with their scores, for every training window of a student.

    Args:
        teacher: any.
        windows: the student's, of the teacher's data.
        k: K.
        mask: what is kept out of a list: "target", "seen" or "none"; see `rd_tf.teacher_lists`.
        block_size: windows, or users of a teacher that looks at nothing else, that are scored together.

    Returns:
        The lists, in memory or, from 256 MiB on, in a temporary memory map.

    Raises:
        InputError: fewer than K items would remain for some window, or the teacher's scores are not finite.
        ValueError: the mask is unknown.
    """
    check_mask(mask)
    data = teacher.data
    check_k(k, mask, int(data.is_candidate.sum()), windows.targets.shape[1], data.seen.longest)
    # Where a user has one list, it is made once.
    per_user = teacher.is_per_user and mask != "target"
    items, scores = empty_lists(len(windows), k)
    starts = np.flatnonzero(np.diff(windows.users, prepend=-1)) if per_user else np.arange(len(windows))
    ends = np.append(starts[1:], len(windows))

    def block(begin: int) -> tuple[np.ndarray, np.ndarray]:
        rows = starts[begin : begin + size]
        scored = teacher.user_scores(windows.users[rows]) if per_user else teacher.window_scores(windows, rows)
        return best_items(scored, masked_items(mask, windows, data.seen, rows), k)

    size = block_rows(block_size, data.num_items + 1)
    begins, threads = range(0, len(starts), size), blocks_at_once()
    with progress_bar("teacher's top-K", len(windows), "windows") as advance:
        blocks = zip(begins, compute_ahead(block, begins, threads, threads), strict=True)
        for begin, (some_items, some_scores) in blocks:
            if not np.isfinite(some_scores).all():
                raise InputError("the teacher's scores are not finite; make it again")
            counts = (ends - starts)[begin : begin + size]
            first = starts[begin]
            rows = slice(first, first + int(counts.sum()))
            items[rows] = np.repeat(some_items, counts, axis=0)
            scores[rows] = np.repeat(half_precision(some_scores), counts, axis=0)
            advance(int(counts.sum()))
    key = CacheKey.of(data.fingerprint, data.name, windows, teacher.fingerprint, mask)
    return TeacherCache(items, scores, lists_manifest(key, len(windows), k))


def evaluate_teacher(
    teacher: Teacher, cutoffs: Sequence[str | int] = (3, 5, 10), evaluator: Evaluator | None = None
) -> Evaluation:
    """Evaluates a teacher on the held-out items of its split, as `rd_tf.evaluate` does a ranker.

    Args:
        teacher: any.
        cutoffs: n, list lengths of the metrics.
        evaluator: of the data, where there is one already; the cutoffs are its own then.

    Raises:
        InputError: a cutoff that is no list length of this catalogue, or the split holds nothing out.
    """
    is_candidate = teacher.data.is_candidate

    def score(users: np.ndarray, _: np.ndarray) -> np.ndarray:
        # Items without a training row are no candidates of an evaluation either.
        return np.where(is_candidate, teacher.user_scores(users), 0.0)

    return (evaluator or Evaluator(teacher.data, 1, cutoffs)).evaluate_scores(score)
