"""What a cell's arguments come to."""

from typing import Any

from absl import flags

from pipelines.distill import distill
from rd_tf import command_line
from rd_tf.storage import InputError


def distill_flags(arguments: list[str]) -> dict[str, Any]:
    """Every flag of `pipelines.distill` that these arguments come to.

    Args:
        arguments: a cell's; the first is its flagfile.

    Raises:
        InputError: the flagfile is missing or cannot be used.
    """
    try:
        return command_line.parse(distill, arguments)
    except flags.Error as error:
        raise InputError(f"{arguments[0]}: {' '.join(str(error).split())}") from None
