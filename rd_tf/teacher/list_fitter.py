"""Makes lists of exactly K items for every window out of lists of any length."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rd_tf.data.readers.files import shorten
from rd_tf.data.teacher_lists import (
    CacheKey,
    TeacherCache,
    check_k,
    check_mask,
    empty_lists,
    half_precision,
    lists_manifest,
    most_masked,
)
from rd_tf.data.windows import SplitData, Windows
from rd_tf.storage import InputError

UNKNOWN, INCOMPLETE = ("refuse", "skip"), ("refuse", "pad")
# (windows [n]) -> their lists, items [n, m] int32 with 0 for none and scores [n, m] float32; None where there are none.
ReadLists = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
# Cells of an array that is made at once: tens of MB.
CELLS = 2**22


def check_choices(mask: str, unknown: str, incomplete: str) -> None:
    """Checks words that say how lists are to be fitted.

    Raises:
        ValueError: one of them is unknown.
    """
    check_mask(mask)
    for name, value, choices in (("unknown", unknown, UNKNOWN), ("incomplete", incomplete, INCOMPLETE)):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; received {value!r}")


class ListFitter:
    """Fits lists of any length to windows, and counts what it does.

    Args:
        data: the dataset and its split.
        windows: its windows.
        mask: "target", "seen" or "none".

    Attributes:
        counts: "items kept out by the mask", "windows without a list" (of any item that may be taught), "windows with
            too few items".
        first_short: number of the first window with fewer than K items, and how many it has; None if there is none.
    """

    def __init__(self, data: SplitData, windows: Windows, mask: str) -> None:
        self.data, self.windows, self.mask = data, windows, mask
        popularity = np.bincount(data.items, minlength=data.num_items + 1)
        popularity[0] = 0
        # Of equally popular items the one with the lower number.
        self._popular = np.argsort(-popularity, kind="stable")[: int(data.is_candidate.sum())].astype(np.int32)
        self.counts = {"items kept out by the mask": 0, "windows without a list": 0, "windows with too few items": 0}
        self.first_short: tuple[int, int] | None = None

    def fit(
        self, rows: np.ndarray, listed: np.ndarray, scores: np.ndarray | None, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Takes the first K items that the mask lets through.

        Args:
            rows: `[n]`, which windows.
            listed: `[n, m] int32`, their lists, all items with a training row and none twice; 0 = none, anywhere.
            scores: `[n, m] float32`, or None.
            k: K.

        Returns:
            items `[n, K] int32` and scores `[n, K] float32`, 0 at the end of too short lists; and `[n] int64`, how many
            items of each list the mask lets through, which may be more than K.
        """
        is_free = (listed > 0) & self._is_free(rows, listed)
        self.counts["items kept out by the mask"] += int(np.count_nonzero(listed) - np.count_nonzero(is_free))
        left = is_free.sum(1)
        order = np.argsort(~is_free, axis=1, kind="stable")[:, :k]
        items = np.zeros((len(rows), k), np.int32)
        values = np.zeros((len(rows), k), np.float32)
        width = order.shape[1]
        items[:, :width] = np.take_along_axis(listed, order, 1)
        if scores is not None:
            values[:, :width] = np.take_along_axis(scores, order, 1)
        is_item = np.arange(k) < left[:, None]
        return np.where(is_item, items, 0), np.where(is_item, values, 0), left

    def note(self, rows: np.ndarray, left: np.ndarray, k: int) -> np.ndarray:
        """Counts the windows with too few items, and gives their places in `rows`."""
        short = np.flatnonzero(left < k)
        if len(short) and self.first_short is None:
            self.first_short = int(rows[short[0]]), int(left[short[0]])
        missing = int(np.count_nonzero(left == 0))
        self.counts["windows without a list"] += missing
        self.counts["windows with too few items"] += len(short) - missing
        return short

    def pad(self, rows: np.ndarray, items: np.ndarray, scores: np.ndarray, left: np.ndarray) -> None:
        """Fills lists up with the most popular items that are neither in the list nor kept out by the mask.

        Args:
            rows: `[n]`, which windows.
            items: `[n, K] int32`, 0 at the end; it is changed.
            scores: `[n, K] float32`; it is changed. Padding has the score of the item before, 0 where there is none.
            left: `[n]`, how many items each list has.
        """
        k = items.shape[1]
        masked = most_masked(self.mask, self.windows.targets.shape[1], self.data.seen.longest)
        popular = self._popular[: 2 * k + masked]
        size = max(1, CELLS // (len(popular) * k))
        for first in range(0, len(rows), size):
            part = slice(first, first + size)
            own, count = items[part], np.minimum(left[part], k)
            more = np.broadcast_to(popular, (len(own), len(popular)))
            is_new = self._is_free(rows[part], more) & ~(more[:, :, None] == own[:, None, :]).any(2)
            joined = np.concatenate([own, more], 1)
            usable = np.concatenate([np.arange(k) < count[:, None], is_new], 1)
            order = np.argsort(~usable, axis=1, kind="stable")[:, :k]
            last = np.take_along_axis(scores[part], np.maximum(count - 1, 0)[:, None], 1)
            items[part] = np.take_along_axis(joined, order, 1)
            scores[part] = np.where(np.arange(k) < count[:, None], scores[part], last)

    def _is_free(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """`[n, m] bool`: which items the mask does not keep out of the windows' lists."""
        if self.mask == "target":
            return ~(items[:, :, None] == self.windows.targets[rows][:, None, :]).any(2)
        if self.mask == "seen":
            return ~self.data.seen.has(self.windows.users[rows], items)
        return np.ones(items.shape, bool)


def fitted_lists(
    source: str,
    read: ReadLists,
    fitter: ListFitter,
    k: int,
    key: CacheKey,
    incomplete: str,
    blocks: list[np.ndarray],
    counts: dict[str, int],
    has_scores: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> TeacherCache:
    """Makes lists of exactly K items of lists of any length.

    Args:
        source: what gave the lists, for messages.
        read: gives the lists of some windows.
        fitter: of the windows; it has not been used for K items before.
        k: K.
        key: what the lists belong to.
        incomplete: "refuse" or "pad".
        blocks: the windows in order, some at a time.
        counts: what the manifest should tell beside the fitter's counts; `read` may go on counting.
        has_scores: whether `read` gives scores.
        advance: told of windows that are done.

    Raises:
        InputError: a window has fewer than K items, which are not to be padded or cannot be.
    """
    data, windows = fitter.data, fitter.windows
    if incomplete == "pad":
        check_k(k, fitter.mask, int(data.is_candidate.sum()), windows.targets.shape[1], data.seen.longest)
    fitter.counts = dict.fromkeys(fitter.counts, 0)
    items, scores = empty_lists(len(windows), k)
    for rows in blocks:
        block_items, block_scores, left = fitter.fit(rows, *read(rows), k)
        short = fitter.note(rows, left, k)
        if len(short) and incomplete == "pad":
            padded = block_items[short], block_scores[short]
            fitter.pad(rows[short], *padded, left[short])
            block_items[short], block_scores[short] = padded
        if not has_scores:
            block_scores[:] = -np.arange(1, k + 1)
        items[rows], scores[rows] = block_items, half_precision(block_scores)
        advance(len(rows))
    if fitter.first_short and incomplete == "refuse":
        raise InputError(_too_short(source, fitter, k))
    described = {"source": source, "incomplete": incomplete, "counts": {**counts, **fitter.counts}}
    manifest = lists_manifest(key, len(windows), k)
    return TeacherCache(items, scores, {**manifest, "scores": "teacher" if has_scores else "ranks", "lists": described})


def _too_short(source: str, fitter: ListFitter, k: int) -> str:
    assert fitter.first_short is not None
    (row, left), counts, windows = fitter.first_short, fitter.counts, fitter.windows
    user = fitter.data.interactions.user_ids[windows.users[row]]
    return (
        f"{source}: of {len(windows):,} windows {counts['windows without a list']:,} have no list and "
        f"{counts['windows with too few items']:,} fewer than --k={k} items (--mask={fitter.mask} keeps "
        f"{counts['items kept out by the mask']:,} out), first that of user {shorten(user)} at position "
        f"{windows.positions[row]} with {left}; give longer lists or a smaller --k, or pass --incomplete=pad"
    )


def counts_line(lists: TeacherCache) -> str:
    """What was read, left out and padded, in one line."""
    described: dict[str, Any] = lists.manifest["lists"]
    counted = ", ".join(f"{count:,} {name}" for name, count in described["counts"].items())
    return f"{described['source']}: {counted}"
