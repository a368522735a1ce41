"""The ranking metrics at a list length, average precision, and paired tests of two rankers by them."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

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


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of a family of tests (Scandinavian Journal of Statistics 1979).

    Args:
        p_values: `[tests] float`; none is NaN.

    Returns:
        `[tests] float64`, the corrected p-values in the same order: to reject those below a level keeps the chance of
        one false rejection in the whole family below that level.
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


# Values that are equal but for the order of a sum differ in the last bits of float64; average precisions that differ,
# of ranks in the ten thousands, do so from the ninth decimal on.
_DECIMALS = 12


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """Two rankers measured on the same n users, or with the same n seeds.

    Attributes:
        n: pairs.
        difference: mean of ours - reference.
        percent: the difference in percent of the reference's mean; NaN where that mean is 0.
        percent_low: lower end of the confidence interval of `percent`, by Student's t, the reference's mean taken as
            given, so that it excludes 0 exactly when `t_p` is below 1 - confidence; NaN for one pair.
        percent_high: its upper end.
        t_p: two-sided p-value of the paired t-test; NaN for one pair, 1 where all differences are 0.
        wilcoxon_p: two-sided p-value of Wilcoxon's signed-rank test; 1 where all differences are 0.
    """

    n: int
    difference: float
    percent: float
    percent_low: float
    percent_high: float
    t_p: float
    wilcoxon_p: float


def compare_paired(ours: np.ndarray, reference: np.ndarray, confidence: float = 0.95) -> PairedComparison:
    """Compares two rankers pair by pair.

    Differences are rounded to 12 decimals first, so that the last bits of float64 break no tie and no zero. Zero
    differences, most users' where few items are held out, take part in Wilcoxon's ranking and are dropped after it
    (Pratt, JASA 1959): to drop them before, as Wilcoxon did, would rank the rest as if nobody had been indifferent.
    From 14 pairs on, or with ties or zeros, its p-value is that of the normal approximation, corrected for ties.

    Args:
        ours: `[n] float`, a value a user or a seed.
        reference: `[n] float`, in the same order.
        confidence: of the interval.

    Raises:
        ValueError: no pairs, or not as many values of one as of the other.
    """
    # A second to import, in every command that evaluates.
    from scipy import stats

    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"ours, reference must be two equally long vectors; received {ours.shape}, {reference.shape}")
    differences = np.round(ours - reference, _DECIMALS)
    n, mean, base = len(differences), float(differences.mean()), float(reference.mean())
    half = t_p = float("nan")
    if n > 1:
        error = float(differences.std(ddof=1)) / np.sqrt(n)
        half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
        t_p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    to_percent = 100 / base if base else float("nan")
    return PairedComparison(
        n=n,
        difference=mean,
        percent=to_percent * mean,
        percent_low=to_percent * (mean - half),
        percent_high=to_percent * (mean + half),
        t_p=t_p,
        wilcoxon_p=_wilcoxon_p(differences),
    )


def _wilcoxon_p(differences: np.ndarray) -> float:
    from scipy import stats

    if not differences.any():
        return 1.0
    exact = len(differences) < 14 and len(np.unique(np.abs(differences))) == len(differences) and differences.all()
    method = "exact" if exact else "approx"
    return float(stats.wilcoxon(differences, zero_method="pratt", method=method).pvalue)


class Spread(Protocol):
    """What an evaluation asks of the processes that share it."""

    def share(self, count: int) -> range:
        """This process' part of `count` things; the parts of all processes are all of them, each once."""

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum of an array over all processes, in every one of them."""


class Alone:
    """A single process."""

    def share(self, count: int) -> range:
        return range(count)

    def sum(self, array: np.ndarray) -> np.ndarray:
        return array
