"""List lengths of the metrics, checked."""

from collections.abc import Sequence

from rd_tf.errors import InputError


def parse_cutoffs(values: Sequence[str | int], num_items: int, flag: str = "cutoffs") -> list[int]:
    """Reads list lengths.

    Args:
        values: whole numbers, or texts that are some; order and repetition do not matter.
        num_items: items of the catalogue, the longest list there can be.
        flag: the flag that named them, for messages.

    Returns:
        Distinct list lengths, ascending.

    Raises:
        InputError: there is none, or one is no whole number from 1 to `num_items`.
    """
    given = ",".join(map(str, values))
    if not values:
        raise InputError(f"--{flag} is empty; give list lengths such as 3,5,10")
    cutoffs = set()
    for value in values:
        try:
            cutoff = int(str(value))
        except ValueError:
            raise InputError(f"--{flag}={given}: {str(value)!r} is not a whole number") from None
        if not 1 <= cutoff <= num_items:
            raise InputError(f"--{flag}={given}: {cutoff} is not between 1 and the {num_items} items of the catalogue")
        cutoffs.add(cutoff)
    return sorted(cutoffs)
