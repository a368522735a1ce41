"""The best K items of every window by a ranker's scores."""

import functools

import numpy as np

from rd_tf.data.teacher_lists import Store, check_k, masked_items
from rd_tf.data.windows import UserItems, Windows
from rd_tf.evaluation.ranks import FrozenScores, Scores, block_rows
from rd_tf.models.ranker import SequenceRanker
from rd_tf.runtime import Advance, blocks_at_once, compute_ahead
from rd_tf.storage import InputError

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
