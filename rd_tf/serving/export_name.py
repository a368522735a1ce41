"""Names that a served model may have."""

import re

from rd_tf.storage import InputError

# What stands in a URL and in a server's configuration without quoting.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def is_export_name(name: str) -> bool:
    """Whether a served model may have a name."""
    return _NAME.fullmatch(name) is not None


def check_export_name(name: str) -> None:
    """Checks a served model's name.

    Raises:
        InputError: it would need quoting in a URL, or leads to another directory.
    """
    if not is_export_name(name):
        raise InputError(
            f"--export_name={name} cannot be a served model's name; take letters, digits, '_', '-', '.', not '.' first"
        )
