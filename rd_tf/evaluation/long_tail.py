"""How well the items are ranked that few people visit."""

import numpy as np

from rd_tf.data.windows import SplitData
from rd_tf.evaluation.held_out import HeldOut


def tail_items(data: SplitData, share: float = 0.8) -> np.ndarray:
    """The least popular items of a catalogue: those with fewest training rows.

    Items without a training row belong to nobody's list and are not counted. Of items that are equally popular, those
    with the lower numbers are taken first.

    Args:
        data: the dataset and its split.
        share: of the items with a training row, above 0 and at most 1; rounded down to a whole number of them.

    Returns:
        `[num_items + 1] bool`.

    Raises:
        ValueError: the share is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1; received {share}")
    counts = np.bincount(data.items, minlength=data.num_items + 1)
    items = np.flatnonzero(data.is_candidate)
    ascending = items[np.argsort(counts[items], kind="stable")]
    is_tail = np.zeros(data.num_items + 1, bool)
    # Without the tiny addend .8 * 5 could come to 3.
    is_tail[ascending[: int(share * len(items) + 1e-9)]] = True
    return is_tail


def recall_of_tail(ranks: np.ndarray, held_out: HeldOut, is_tail: np.ndarray, n: int = 10) -> float:
    """Recall@n of the held-out items that are in the tail: the mean, over users with one, of the share that is listed.

    Lists are those of the whole catalogue; only what is looked for in them is restricted.

    Args:
        ranks: `[targets] float64`, as `Evaluation.ranks`.
        held_out: whose targets they are.
        is_tail: `[num_items + 1] bool`, as `tail_items` gives it.
        n: length of the lists.

    Returns:
        From 0 to 1; 0 where nobody has such an item.
    """
    user = np.repeat(np.arange(len(held_out.users)), np.diff(held_out.target_offsets))
    of_tail = is_tail[held_out.targets]
    wanted = np.bincount(user[of_tail], minlength=len(held_out.users))
    found = np.bincount(user[of_tail & (ranks <= n)], minlength=len(held_out.users))
    has_some = wanted > 0
    return float((found[has_some] / wanted[has_some]).mean()) if has_some.any() else 0.0
