"""The training items of every user."""

import numpy as np

from rd_tf.data.interactions import user_offsets
from rd_tf.data.windows import Windows
from rd_tf.errors import InputError


class UserItems:
    """Training items of every user, in time order, as rows of different length.

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

    def occurring(self, num_items: int) -> np.ndarray:
        """Which items some user has: `[num_items + 1] bool`; never the padding.

        Raises:
            InputError: a user has an item beyond `num_items`.
        """
        if self._items.max() > num_items:
            raise InputError(
                f"a user of the dataset has item {self._items.max()}, but the model knows {num_items} items; "
                "its manifest.json is damaged, so train it again"
            )
        occurs = np.zeros(num_items + 1, bool)
        occurs[self._items[:-1]] = True
        return occurs

    def padded(self, users: np.ndarray) -> np.ndarray:
        """All items of some users: `[len(users), longest among them] int32`, padded with 0 on the right."""
        counts = self._offsets[users + 1] - self._offsets[users]
        place = np.arange(max(1, int(counts.max(initial=0))))
        inside = place < counts[:, None]
        return self._items[np.where(inside, self._offsets[users][:, None] + place, -1)]

    def histories(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All items of some users, one user after another.

        Returns:
            items `[n] int32` and, for each, the place of its user in `users`, `[n] int32`.
        """
        return self._ranges(self._offsets[users], self._offsets[users + 1])

    def window_histories(self, windows: Windows, rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """What the users of some windows had visited, one window after another.

        Args:
            windows: cut from the same rows as these items.
            rows: `[rows]`, which windows.
            kind: "before", the items before the window's first target; or "all", all but the window's targets, so also
                those that the user visited later.

        Returns:
            items `[n] int32` and, for each, the place of its window in `rows`, `[n] int32`.

        Raises:
            ValueError: an unknown kind.
        """
        if kind not in ("before", "all"):
            raise ValueError(f"kind must be before or all; received {kind!r}")
        users = windows.users[rows]
        begin, end = self._offsets[users], self._offsets[users + 1]
        last = begin + windows.positions[rows]
        first = np.maximum(begin, last + 1 - windows.targets.shape[1])
        if kind == "before":
            return self._ranges(begin, first)
        starts, ends = np.stack([begin, last + 1], axis=1).ravel(), np.stack([first, end], axis=1).ravel()
        items, place = self._ranges(starts, ends)
        return items, place // 2

    def _ranges(self, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = ends - starts
        place = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        before = np.cumsum(counts) - counts
        return self._items[np.arange(len(place)) + (starts - before)[place]], place
