"""Rows that lie in several arrays, read as those of one."""

from collections.abc import Sequence

import numpy as np


class ShardedArray:
    """An array whose rows are those of several arrays, one after another; memory maps stay memory maps.

    `array[rows]` takes `[n]` whole numbers from 0, in any order and repeated, and copies these rows into one NumPy
    array, as indexing a NumPy array by them would. Nothing else of an array is offered.

    Args:
        parts: `[rows of the part, ...]`, at least one, of one type and, but for the rows, one shape; one may be empty.

    Attributes:
        parts: the arrays.
        shape: of the whole.
        dtype: of every part.

    Raises:
        ValueError: no parts, or they do not fit together.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        kinds = {(part.shape[1:], part.dtype) for part in parts}
        if len(kinds) != 1:
            raise ValueError(
                f"parts must be of one shape but for the rows, and of one type; received {kinds or 'none'}"
            )
        ((columns, self.dtype),) = kinds
        self.parts = tuple(parts)
        # Where every part begins, and the end of the last one.
        self._bounds = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.shape: tuple[int, ...] = (int(self._bounds[-1]), *columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The given rows: `[len(rows), ...]`.

        Raises:
            IndexError: a row below 0 or from the number of rows on.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows must be from 0 to {len(self) - 1}; received {rows.min()} to {rows.max()}")
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        # An empty part begins where the next one does; from the right, the row is that one's.
        numbers = np.searchsorted(self._bounds, rows, side="right") - 1
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            taken[here] = self.parts[number][rows[here] - self._bounds[number]]
        return taken
