"""Whether a student was distilled from the teacher beside it."""

from pathlib import Path
from typing import Any

from rd_tf.storage import InputError


def check_teacher(path: Path, manifest: dict[str, Any], teacher_path: Path, teacher: dict[str, Any]) -> None:
    """Refuses a student distilled from other weights than the teacher's.

    Args:
        path: directory of the student or its evidence, for the message.
        manifest: its manifest.
        teacher_path: directory of the teacher.
        teacher: the teacher's manifest.

    Raises:
        InputError: it had another teacher, or none.
    """
    found = (manifest.get("teacher") or {}).get("teacher")
    expected = teacher["model"]["fingerprint"]
    if found != expected:
        had = f"from the teacher {str(found)[:16]}" if found else "from no teacher"
        raise InputError(
            f"{path} was distilled {had}, but {teacher_path} is {expected[:16]}; delete both to train them again"
        )
