"""Whether lists of K items can be made."""

from rd_tf.errors import InputError


def check_k(k: int, mask: str, num_items: int, target_length: int, longest: int) -> None:
    """Checks that every window has K items left.

    Args:
        k: K.
        mask: "target", "seen" or "none".
        num_items: how many items may be listed, those with a training row.
        target_length: T.
        longest: most training items of a user.

    Raises:
        InputError: fewer than K items would remain for some window.
    """
    masked = {"target": target_length, "seen": longest, "none": 0}[mask]
    if k > num_items - masked:
        raise InputError(
            f"--k={k} is larger than the catalogue of {num_items} items with a training row less the {masked} that "
            f"--mask={mask} keeps out; use --k={max(num_items - masked, 0)} or less"
        )
