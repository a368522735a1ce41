"""A ranker's best K items for every training window."""

from collections.abc import Callable

import numpy as np

from rd_tf.compute_ahead import compute_ahead
from rd_tf.data.interactions import user_offsets
from rd_tf.data.windows import Windows
from rd_tf.errors import InputError
from rd_tf.models.frozen_scores import FrozenScores, block_rows
from rd_tf.models.ranker import SequenceRanker
from rd_tf.progress import Advance
from rd_tf.teacher.best_items import best_items
from rd_tf.threads import blocks_at_once

Store = Callable[[int, np.ndarray, np.ndarray], None]


class SeenItems:
    """Training items of every user as rows of different length.

    Args:
        users: `[rows] int32`, sorted.
        items: `[rows] int32`.
        num_users: number of users.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, num_users: int) -> None:
        self._offsets = user_offsets(users, num_users)
        self._items = np.append(items, np.int32(0)).astype(np.int32, copy=False)

    @property
    def longest(self) -> int:
        return int(np.diff(self._offsets).max(initial=0))

    def rows(self, users: np.ndarray) -> np.ndarray:
        """The seen items of some users: `[len(users), longest among them] int32`, padded with 0."""
        counts = self._offsets[users + 1] - self._offsets[users]
        place = np.arange(max(1, int(counts.max(initial=0))))
        inside = place < counts[:, None]
        return self._items[np.where(inside, self._offsets[users][:, None] + place, -1)]


class TopK:
    """Lists the best K items of windows, block by block: one matrix product and a partial sort a block.

    Args:
        model: the ranker; its weights are taken as they are now.
        windows: the training windows.
        seen: the users' training items, for the mask "seen".
        k: K.
        mask: "target" keeps a window's own targets out of its list (the paper), "seen" all training items of the user,
            "none" nothing. The padding is never in a list.
        block_size: windows a block; fewer where the catalogue is so large that memory would matter.

    Raises:
        InputError: fewer than K items would remain for some window.
    """

    def __init__(
        self, model: SequenceRanker, windows: Windows, seen: SeenItems, k: int, mask: str, block_size: int
    ) -> None:
        masked = {"target": windows.targets.shape[1], "seen": seen.longest, "none": 0}[mask]
        if k > model.num_items - masked:
            raise InputError(
                f"--k={k} is larger than the catalogue of {model.num_items} items less the {masked} that --mask={mask} "
                f"keeps out; use --k={max(model.num_items - masked, 0)} or less"
            )
        self._windows, self._seen, self._mask, self._k = windows, seen, mask, k
        self._block_size = block_rows(block_size, model.num_items + 1)
        self._scores = FrozenScores(model).freeze()

    def lists(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items `[len(rows), K] int32` and scores `[len(rows), K] float32` of some windows, best first."""
        blocks = [self._block(rows[at : at + self._block_size]) for at in range(0, len(rows), self._block_size)]
        items, scores = zip(*blocks, strict=True)
        return np.concatenate(items), np.concatenate(scores)

    def _block(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        users = self._windows.users[rows]
        exclude = {
            "target": lambda: self._windows.targets[rows],
            "seen": lambda: self._seen.rows(users),
            "none": lambda: np.zeros((len(rows), 1), np.int32),
        }[self._mask]()
        return best_items(self._scores(users, self._windows.sequences[rows]), exclude, self._k)

    def all_lists(self, store: Store, advance: Advance) -> None:
        """Hands the lists of all windows to `store`, block by block, in order.

        Raises:
            InputError: the ranker's scores are not finite.
        """
        starts = range(0, len(self._windows), self._block_size)
        blocks = (np.arange(first, min(first + self._block_size, len(self._windows))) for first in starts)
        threads = blocks_at_once()
        # The next blocks are scored while this one's lists are written.
        for first, (items, scores) in zip(starts, compute_ahead(self._block, blocks, threads, threads), strict=True):
            if not np.isfinite(scores).all():
                raise InputError("the teacher's scores are not finite; train it again with a smaller --learning_rate")
            store(first, items, scores)
            advance(len(items))
