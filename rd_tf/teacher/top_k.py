"""A ranker's best K items for every training window."""

import functools
from collections.abc import Callable

import numpy as np

from rd_tf.compute_ahead import compute_ahead
from rd_tf.data.user_items import UserItems
from rd_tf.data.windows import Windows
from rd_tf.errors import InputError
from rd_tf.evaluation.frozen_scores import FrozenScores, Scores, block_rows
from rd_tf.models.ranker import SequenceRanker
from rd_tf.progress import Advance
from rd_tf.teacher.best_items import best_items
from rd_tf.teacher.check_k import check_k
from rd_tf.threads import blocks_at_once

Store = Callable[[int, np.ndarray, np.ndarray], None]


class TopK:
    """Lists the best K items of windows, block by block: one matrix product and a partial sort a block.

    Args:
        model: the ranker.
        windows: the training windows.
        seen: the users' training items, for the mask "seen" and for a ranker that looks back on a history.
        k: K.
        mask: "target" keeps a window's own targets out of its list (the paper), "seen" all training items of the user,
            "none" nothing. The padding is never in a list.
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
        self._history = model.looks_back
        self._first_user = first_user
        self._scores = scores or FrozenScores(model)

    def lists(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items `[len(rows), K] int32` and scores `[len(rows), K] float32` of some windows, best first."""
        scores, size = self._scores.freeze(self._is_candidate), self._block_size
        blocks = [self._block(scores, rows[at : at + size]) for at in range(0, len(rows), size)]
        items, scores = zip(*blocks, strict=True)
        return np.concatenate(items), np.concatenate(scores)

    def _block(self, scores: Scores, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        users = self._windows.users[rows]
        exclude = {
            "target": lambda: self._windows.targets[rows],
            "seen": lambda: self._seen.padded(users),
            "none": lambda: np.zeros((len(rows), 1), np.int32),
        }[self._mask]()
        history = None
        if self._history != "none":
            history = self._seen.window_histories(self._windows, rows, self._history)
        rankers_users = users + np.int32(self._first_user)
        return best_items(scores(rankers_users, self._windows.sequences[rows], history), exclude, self._k)

    def all_lists(self, store: Store, advance: Advance) -> None:
        """Hands the lists of all windows to `store`, block by block, in order.

        Raises:
            InputError: the ranker's scores are not finite.
        """
        starts = range(0, len(self._windows), self._block_size)
        blocks = (np.arange(first, min(first + self._block_size, len(self._windows))) for first in starts)
        threads, list_block = blocks_at_once(), functools.partial(self._block, self._scores.freeze(self._is_candidate))
        # The next blocks are scored while this one's lists are written.
        for first, (items, scores) in zip(starts, compute_ahead(list_block, blocks, threads, threads), strict=True):
            if not np.isfinite(scores).all():
                raise InputError("the teacher's scores are not finite; train it again with a smaller --learning_rate")
            store(first, items, scores)
            advance(len(items))
