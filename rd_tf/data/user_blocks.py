"""User-sorted rows, some whole users at a time."""

from collections.abc import Iterator

import numpy as np

_ROWS = 2**20


def user_blocks(users: np.ndarray, rows: int = _ROWS) -> Iterator[slice]:
    """Cuts user-sorted rows between users, so that what is computed of a block needs little memory.

    Args:
        users: `[rows] int32`, sorted.
        rows: of a block at least, the last one excepted; a user's rows are never cut.

    Yields:
        Slices that cover all rows in order.
    """
    begin = 0
    while begin < len(users):
        last = min(begin + rows, len(users)) - 1
        end = int(np.searchsorted(users, users[last], side="right"))
        yield slice(begin, end)
        begin = end
