"""Teachers by their scores: anything that scores the whole catalogue, alone or fused, for windows and for users."""

import abc
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rd_tf.data.teacher_lists import (
    CacheKey,
    Store,
    TeacherCache,
    check_k,
    check_mask,
    empty_lists,
    half_precision,
    lists_manifest,
    masked_items,
)
from rd_tf.data.windows import SplitData, UserItems, Windows
from rd_tf.evaluation.evaluator import Evaluation, Evaluator
from rd_tf.evaluation.ranks import FrozenScores, Scores, block_rows
from rd_tf.models.ranker import SequenceRanker
from rd_tf.runtime import Advance, blocks_at_once, compute_ahead, progress_bar
from rd_tf.storage import InputError

if TYPE_CHECKING:
    from rd_tf.models.ranker import SequenceRanker

# Chunks of columns are 2 .. 64 wide, so that there are about eight times as many as items are wanted.
_WIDEST_CHUNK = 64
_CHUNKS_PER_ITEM = 8


def best_items(scores: np.ndarray, exclude: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists the k best items of every row, as `SequenceRanker.recommend` does, in less time.

    A bound that at least k items reach is taken from the maxima of chunks of columns; only the items that reach it are
    sorted. Of 14,010 items and k = 100 about 107 do: 10 us a row on one core, where TensorFlow's `top_k`, a heap, takes
    100 us (50 us in `partial_top_k`).

    Args:
        scores: `[rows, num_items + 1] float32`; column 0, the padding, is never listed.
        exclude: `[rows, m] int32`, items kept out of the row's list, 0 = none.
        k: 1 .. num_items.

    Returns:
        items `[rows, k] int32` and scores `[rows, k] float32`, best first; of equal scores the item with the lower
        number. Where fewer than k items remain the rest is item 0 with score -inf; where a
        score of the row is NaN all are.
    """
    rows, columns = scores.shape
    # All excluded items and the padding may be above the bound, and k items must remain without them.
    reach = scores >= _bound(scores, min(columns, k + exclude.shape[1] + 1))[:, None]
    reach[np.arange(rows)[:, None], exclude] = False
    reach[:, 0] = False
    cells = np.flatnonzero(reach)
    begins = np.searchsorted(cells, np.arange(rows + 1) * columns)
    counts = np.diff(begins)
    row = np.repeat(np.arange(rows), counts)
    place = np.arange(len(cells)) - begins[row]
    width = max(k, int(counts.max(initial=0)))
    items = np.zeros((rows, width), np.int32)
    items[row, place] = cells - row * columns
    values = np.full((rows, width), -np.inf, np.float32)
    values[row, place] = scores.reshape(-1)[cells]
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(values, order, axis=1)


def _bound(scores: np.ndarray, wanted: int) -> np.ndarray:
    """A score that at least `wanted` columns of each row reach, and few more: `[rows]`; NaN where a score is NaN."""
    rows, columns = scores.shape
    width = min(_WIDEST_CHUNK, columns // (_CHUNKS_PER_ITEM * wanted))
    if width > 1:
        # A chunk is every count-th column, not neighbouring ones: NumPy is faster at maxima of columns that lie apart,
        # since it compares whole runs of neighbours at a time.
        count = columns // width
        highest = scores[:, : count * width].reshape(rows, width, count).max(axis=1)
        # The few columns that fill no chunk stay as they are.
        scores = np.concatenate([highest, scores[:, count * width :]], axis=1)
    place = scores.shape[1] - wanted
    bound = np.partition(scores, place, axis=1)[:, place]
    bound[np.isnan(scores).any(axis=1)] = np.nan
    return bound


class TopK:
    """Lists the best K items of windows, block by block: one matrix product and a partial sort a block.

    Args:
        model: the ranker.
        windows: the training windows.
        seen: the users' training items, for the mask "seen" and for a ranker that looks back on a history.
        k: K.
        mask: what is kept out of a list, see `masked_items`; the padding is in none.
        block_size: windows a block; fewer where the catalogue is so large that memory would matter.
        first_user: the ranker's number of the user whom windows and seen items call 0.
        scores: of the ranker, where other windows were scored with it before; None for new ones.
        is_candidate: `[num_items + 1] bool`, the items that may be in a list, those with a training row; None: all.

    Raises:
        InputError: fewer than K items would remain for some window.
    """

    def __init__(
        self,
        model: SequenceRanker,
        windows: Windows,
        seen: UserItems,
        k: int,
        mask: str,
        block_size: int,
        first_user: int = 0,
        scores: FrozenScores | None = None,
        is_candidate: np.ndarray | None = None,
    ) -> None:
        candidates = model.num_items if is_candidate is None else int(is_candidate.sum())
        check_k(k, mask, candidates, windows.targets.shape[1], seen.longest)
        self._is_candidate = is_candidate
        self._windows, self._seen, self._mask, self._k = windows, seen, mask, k
        self._block_size = block_rows(block_size, model.num_items + 1)
        self._history = model.looks_back if model.has_history else None
        self._first_user = first_user
        self._scores = scores or FrozenScores(model)

    def lists(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items `[len(rows), K] int32` and scores `[len(rows), K] float32` of some windows, best first."""
        scores, size = self._scores.freeze(self._is_candidate), self._block_size
        blocks = [self._block(scores, rows[at : at + size]) for at in range(0, len(rows), size)]
        items, scores = zip(*blocks, strict=True)
        return np.concatenate(items), np.concatenate(scores)

    def _block(self, scores: Scores, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        exclude = masked_items(self._mask, self._windows, self._seen, rows)
        history = None
        if self._history:
            history = self._seen.window_histories(self._windows, rows, self._history)
        users = self._windows.users[rows] + np.int32(self._first_user)
        return best_items(scores(users, self._windows.sequences[rows], history), exclude, self._k)

    def all_lists(self, store: Store, advance: Advance) -> None:
        """Hands the lists of all windows to `store`, block by block, in order.

        Raises:
            InputError: the ranker's scores are not finite.
        """
        starts = range(0, len(self._windows), self._block_size)
        blocks = (np.arange(first, min(first + self._block_size, len(self._windows))) for first in starts)
        threads, list_block = blocks_at_once(), functools.partial(self._block, self._scores.freeze(self._is_candidate))
        # Threads score the next blocks while this one's lists are written.
        for first, (items, scores) in zip(starts, compute_ahead(list_block, blocks, threads, threads), strict=True):
            if not np.isfinite(scores).all():
                raise InputError("the teacher's scores are not finite; train it again with a smaller --learning_rate")
            store(first, items, scores)
            advance(len(items))


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
