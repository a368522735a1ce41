"""Raw ids as an export keeps them."""

import gzip
import os
from collections.abc import Sequence

from rd_tf.storage import InputError


def check_ids(kind: str, ids: Sequence[str], expected: int, id_type: str) -> None:
    """Checks the raw ids of users or items.

    Args:
        kind: "users" or "items", for messages.
        ids: the raw ids.
        expected: how many the model has.
        id_type: "string" or "int64".

    Raises:
        InputError: there are more or fewer, one is empty, holds a line break or stands twice, or one is no int64 or 0
            where ids are int64.
    """
    if len(ids) != expected:
        raise InputError(f"{len(ids)} ids of {kind} do not fit a model of {expected} {kind}; give its own dataset")
    bad = next((name for name in ids if not name or "\n" in name or "\r" in name), None)
    if bad is not None:
        raise InputError(f"{bad!r} among the ids of {kind} is empty or holds a line break; prepare the data again")
    if len(set(ids)) != len(ids):
        raise InputError(f"an id stands twice among the ids of {kind}; prepare the data again")
    if id_type == "int64":
        _check_integers(kind, ids)


def _check_integers(kind: str, ids: Sequence[str]) -> None:
    for name in ids:
        # As Python writes it, since "007" and "7" would be one number.
        number = int(name) if name.removeprefix("-").isascii() and name.removeprefix("-").isdigit() else None
        if number is None or str(number) != name or not -(2**63) <= number < 2**63:
            raise InputError(f"{name!r} among the ids of {kind} is not an int64; export with --id_type=string")
        if number == 0 and kind == "items":
            raise InputError(
                "an item has the id 0, which means no item with --id_type=int64; export with --id_type=string"
            )


def write_ids(path: str | os.PathLike[str], ids: Sequence[str]) -> None:
    """Writes ids as a gzip file of lines, the last one without a line break; the same ids give the same bytes."""
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as compressed:
        compressed.write("\n".join(ids).encode("utf-8", "surrogateescape"))
