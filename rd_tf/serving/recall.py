"""How much of the exact lists a search finds."""

import numpy as np
import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.exact_search import ExactSearch
from rd_tf.serving.real_queries import Queries
from rd_tf.serving.recommend_signature import Search

_CUTOFFS = (1, 10, 100)
_BLOCK = 16


def recall(ranker: SequenceRanker, search: Search, queries: Queries, max_k: int) -> dict[str, float]:
    """Share of the exact k best items that a search lists among its own k best, as a mean over queries.

    Args:
        ranker: scores.
        search: what is measured.
        queries: whose items are kept out of the lists.
        max_k: longest list.

    Returns:
        `recall@k` for k = 1, 10 and 100 where `max_k` allows, and for `max_k`.
    """
    exact = ExactSearch()

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, ranker.query_dim]), tf.TensorSpec([None, None], tf.int32)],
    )
    def both(query: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return exact(ranker, query, exclude, max_k)[0], search(ranker, query, exclude, max_k)[0]

    vectors, cutoffs = queries.encode(ranker), sorted({*(k for k in _CUTOFFS if k < max_k), max_k})
    found: dict[int, list[float]] = {k: [] for k in cutoffs}
    for begin in range(0, len(vectors), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        exclude = queries.rows(rows).exclude()
        for wanted, listed in zip(*map(np.asarray, both(vectors[rows], exclude)), strict=True):
            for k in cutoffs:
                best = wanted[:k][wanted[:k] > 0]
                found[k].append(float(np.isin(best, listed[:k]).mean()) if len(best) else 1.0)
    return {f"recall@{k}": float(np.mean(values)) for k, values in found.items()}
