"""Rankers that learn nothing, to hold trained ones against: the most popular items, and the last item's successors.

Both are scores for `Evaluator.evaluate_scores`, so that their metrics are computed as a model's are: the user's
training items are left out, and a tie counts against the ranker.
"""

from collections.abc import Sequence

import numpy as np

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Split
from rd_tf.evaluation.evaluator import Evaluation, Evaluator
from rd_tf.evaluation.ranks import Score


def popularity_scores(interactions: Interactions, split: Split) -> Score:
    """Ranks items by their number of training interactions, for every user alike.

    Args:
        interactions: the dataset.
        split: whose training rows are counted; repeated visits count each time.

    Returns:
        (users `[batch]`, sequences `[batch, L]`) -> scores `[batch, num_items + 1] float32`, read-only.
    """
    levels = _popularity_levels(interactions, split).astype(np.float32)
    return lambda users, _: np.broadcast_to(levels, (len(users), len(levels)))


def successor_scores(interactions: Interactions, split: Split) -> Score:
    """Ranks items by how often they came right after the user's last training item, in any user's training history.

    Ties, and so all items that never did, are ranked by popularity.

    Args:
        interactions: the dataset.
        split: whose training rows are counted.

    Returns:
        (users `[batch]`, sequences `[batch, L] int32`, the last item in the last column, 0 = none) -> scores
        `[batch, num_items + 1] float32`.
    """
    popularity = _popularity_levels(interactions, split)
    users, items = interactions.users[split.train], interactions.items[split.train].astype(np.int64)
    is_pair = users[1:] == users[:-1]
    size = interactions.num_item_rows
    pairs, counts = np.unique(items[:-1][is_pair] * size + items[1:][is_pair], return_counts=True)
    before, after = np.divmod(pairs, size)
    offsets = np.searchsorted(before, np.arange(size + 1))
    # Instead of the count its place, from 1, among the distinct counts after the same item: that keeps the sums below
    # 2^24, up to where float32 is exact.
    first = before * (counts.max(initial=0) + 1)
    distinct, places = np.unique(first + counts, return_inverse=True)
    gains = ((popularity.max() + 1) * (places - np.searchsorted(distinct, first) + 1)).astype(np.float32)
    bases = popularity.astype(np.float32)

    def score(users: np.ndarray, sequences: np.ndarray) -> np.ndarray:
        scores = np.tile(bases, (len(users), 1))
        for row, last in zip(scores, sequences[:, -1], strict=True):
            successors = slice(offsets[last], offsets[last + 1])
            row[after[successors]] += gains[successors]
        return scores

    return score


BASELINES = {"popularity": popularity_scores, "successors": successor_scores}


def evaluate_baselines(
    interactions: Interactions, split: Split, cutoffs: Sequence[str | int], block_size: int = 1024
) -> dict[str, Evaluation]:
    """Evaluates all of `BASELINES` by name; arguments and errors as in `rd_tf.evaluation.evaluator.Evaluator`."""
    evaluator = Evaluator(interactions, split, 1, cutoffs, block_size)
    return {name: evaluator.evaluate_scores(scores(interactions, split)) for name, scores in BASELINES.items()}


def _popularity_levels(interactions: Interactions, split: Split) -> np.ndarray:
    """`[num_items + 1]`: the place, from 0, of an item's number of training rows among the distinct ones."""
    counts = np.bincount(interactions.items[split.train], minlength=interactions.num_item_rows)
    return np.unique(counts, return_inverse=True)[1]
