"""Whether two runs may stand in one table or plot."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipelines.flag_difference import flag_difference
from rd_tf.command_line import flag_lines
from rd_tf.storage import InputError


def check_alike(
    path: Path, manifest: dict[str, Any], other_path: Path, other: dict[str, Any], but: Collection[str] = ()
) -> None:
    """Refuses two runs of different splits, data or settings.

    Args:
        path: directory of a run or its evidence, for the message.
        manifest: its manifest.
        other_path: directory of the other.
        other: the other's manifest.
        but: flags that may differ, beside those that have no part in the result.

    Raises:
        InputError: they differ.
    """
    for name, found, expected in (
        ("split", manifest["split"], other["split"]),
        ("dataset", manifest["dataset"]["fingerprint"][:16], other["dataset"]["fingerprint"][:16]),
    ):
        if found != expected:
            raise InputError(f"{path} has the {name} {found}, but {other_path} has {expected}; keep one {name} only")
    difference = flag_difference(manifest.get("flags") or {}, other.get("flags") or {}, but)
    if difference:
        name, *values = difference
        found, expected = (flag_lines({name: value}).strip() for value in values)
        raise InputError(
            f"{path} was trained with {found}, but {other_path} with {expected}; keep runs of one setting only"
        )
