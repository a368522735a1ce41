"""Whether a teacher cache that is there already is kept."""

from collections.abc import Callable

from rd_tf.errors import InputError


def may_keep(check: Callable[[], object], is_default_place: bool) -> bool:
    """Whether a cache belongs to the teacher at hand; where it does not, it may be replaced.

    Args:
        check: raises InputError where the cache belongs to something else, or is damaged.
        is_default_place: whether nobody named the cache's directory.

    Raises:
        InputError: it belongs to something else, and somebody named the directory.
    """
    try:
        check()
    except InputError as error:
        if is_default_place:
            # It belongs to this teacher: what does not fit there was made before it was trained again.
            return False
        raise InputError(f"{error} --force") from None
    return True
