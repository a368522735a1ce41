"""The ranking metrics at a list length, average precision, and the check of list lengths."""

from collections.abc import Sequence

import numpy as np

from rd_tf.storage import InputError


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


def hits(ranks: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Targets among the first n items."""
    return _sum_by_user(ranks <= n, offsets)


def precision(ranks: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """P@n = hits / n."""
    return hits(ranks, offsets, n) / n


def recall(ranks: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """R@n = hits / number of targets."""
    return hits(ranks, offsets, n) / np.diff(offsets)


def hit_rate(ranks: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """HR@n = 1 where a target is among the first n items, else 0."""
    return (hits(ranks, offsets, n) > 0).astype(np.float64)


def mrr(ranks: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """MRR@n = 1 / rank of the first target, 0 where that rank is beyond n."""
    first = np.minimum.reduceat(ranks, offsets[:-1])
    return np.where(first <= n, 1.0 / first, 0.0)


def ndcg(ranks: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """Textbook nDCG@n: gains 1 / log2(rank + 1) of the first n items, over that of the best list of n items.

    Source: Järvelin & Kekäläinen, TOIS 2002, with binary gains.
    """
    return _dcg(ranks, ranks <= n, offsets) / _ideal_dcg(np.minimum(n, np.diff(offsets)))


def ndcg_tang(ranks: np.ndarray, offsets: np.ndarray, n: int) -> np.ndarray:
    """nDCG@n as Tang & Wang (KDD 2018) computed it: both lists are cut at min(n, number of targets).

    Never above `ndcg`. Their code has it in evaluation.py; the paper's tables hold these values.
    """
    counts = np.diff(offsets)
    cutoffs = np.minimum(n, counts)
    return _dcg(ranks, ranks <= np.repeat(cutoffs, counts), offsets) / _ideal_dcg(cutoffs)


def average_precision(ranks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """AP over the whole list: the sum over targets of the precision at its rank, divided by the number of targets."""
    counts = np.diff(offsets)
    user = np.repeat(np.arange(len(counts)), counts)
    is_listed = np.isfinite(ranks)
    # One sort of numbers, exact below 2^53, takes a sixth of the time of a sort by user and rank.
    unlisted = ranks.max(initial=0.0, where=is_listed) + 1.0
    first = user * (unlisted + 1.0)
    ascending = np.sort(first + np.where(is_listed, ranks, unlisted)) - first
    nth = np.arange(1, len(ranks) + 1) - np.repeat(offsets[:-1], counts)
    return _sum_by_user(np.where(ascending < unlisted, nth / ascending, 0.0), offsets) / counts


AT_CUTOFF = {
    "precision": precision,
    "recall": recall,
    "ndcg": ndcg,
    "ndcg_tang": ndcg_tang,
    "hit_rate": hit_rate,
    "mrr": mrr,
}


def _sum_by_user(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values.astype(np.float64), offsets[:-1])


def _dcg(ranks: np.ndarray, is_listed: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    gains = np.zeros(len(ranks))
    gains[is_listed] = _gain(ranks[is_listed])
    return _sum_by_user(gains, offsets)


def _gain(ranks: np.ndarray) -> np.ndarray:
    return 1.0 / np.log2(ranks + 1.0)


def _ideal_dcg(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(_gain(np.arange(1.0, lengths.max() + 1.0)))[lengths - 1]
