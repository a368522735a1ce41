"""Generated files that a user may edit: an edited one is left alone."""

import enum
import hashlib
import os
from pathlib import Path

from rd_tf.storage import write_text

_MARK = "# Written by rd_tf.export. An edited file is left alone; delete it to have it written anew. "


class Outcome(enum.Enum):
    """What `write_unless_edited` did."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    EDITED = "edited"


def write_unless_edited(path: str | os.PathLike[str], text: str) -> Outcome:
    """Writes a text under a comment that holds its SHA-256, whole or not at all.

    A file that does not begin with that comment, or whose text is not the comment's, is somebody's own and stays.

    Args:
        path: the file; `#` begins a comment in it.
        text: without the comment.

    Returns:
        EDITED where a file of the user's stays that is not what would be written.
    """
    path = Path(path)
    whole = f"{_MARK}{_digest(text)}\n{text}"
    if path.exists():
        found = path.read_text(encoding="utf-8", errors="replace")
        if found == whole:
            return Outcome.UNCHANGED
        if not _is_ours(found):
            return Outcome.EDITED
    write_text(path, whole)
    return Outcome.WRITTEN


def _is_ours(found: str) -> bool:
    first, _, text = found.partition("\n")
    return first == _MARK + _digest(text)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
