"""What a reader hands over: three columns as they stand in the file, and where every row came from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class RawTable:
    """The needed columns of one file or of a piece of it, nothing converted.

    Attributes:
        users: `[rows]` raw user ids.
        items: `[rows]` raw item ids.
        times: `[rows]` raw times; None where the order of the rows is the time.
        misfits: rows that were left out of the columns because they have another number of fields; of a piece of a file
            those since the piece before.
        locate: from a row of the file's columns (None: no row, only misfits matter) to the first trouble at or before
            it: the place in words ("line 7") and, if a misfit stands there, what is wrong with it, else None.
    """

    users: pa.ChunkedArray
    items: pa.ChunkedArray
    times: pa.ChunkedArray | None
    misfits: int
    locate: Callable[[int | None], tuple[str, str | None]]


def shorten(value: Any, limit: int = 60) -> str:
    """A value as a message shows it: its repr, bytes read as UTF-8 where they are, at most `limit` characters."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value[: 4 * limit]
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
