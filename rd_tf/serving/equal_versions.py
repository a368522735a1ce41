"""Whether two versions of a served model are the same."""

import os
from pathlib import Path
from typing import Any

from rd_tf.serving.measured import REPORT_FILE
from rd_tf.storage import file_sha256, read_manifest

# What the report says of the machine at that moment rather than of the export.
_OF_THE_MOMENT = "seconds_per_request"


def are_equal_versions(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two versions have the same files with the same bytes, the seconds in their reports aside.

    Args:
        one: a version's directory.
        other: another one's.

    Raises:
        InputError: a report is damaged.
    """
    files, others = _files(Path(one)), _files(Path(other))
    return files.keys() == others.keys() and all(
        _report(files[name]) == _report(others[name])
        if name == REPORT_FILE
        else files[name].stat().st_size == others[name].stat().st_size
        and file_sha256(files[name]) == file_sha256(others[name])
        for name in files
    )


def _files(version: Path) -> dict[Path, Path]:
    return {path.relative_to(version): path for path in version.rglob("*") if path.is_file()}


def _report(path: Path) -> dict[str, Any]:
    return {name: value for name, value in read_manifest(path, {}).items() if name != _OF_THE_MOMENT}
