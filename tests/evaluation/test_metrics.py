"""Metrics of ranks: hand-computed cases and an oracle that walks down the list."""

import math

import numpy as np
import pytest

from rd_tf.evaluation.metrics import AT_CUTOFF, average_precision, hit_rate, mrr, ndcg, ndcg_tang, precision, recall

METRICS = {**AT_CUTOFF, "ap": lambda ranks, offsets, n: average_precision(ranks, offsets)}


def one_user(metric, ranks, n=10):
    return metric(np.array(ranks, float), np.array([0, len(ranks)]), n)[0]


def walk_down_the_list(ranks, n, length=200):
    """All metrics of one user from the definitions, item after item."""
    is_hit = [rank in ranks for rank in range(1, length + 1)]
    count = len(ranks)

    def dcg(hits):
        return sum(hit / math.log2(place + 1) for place, hit in enumerate(hits, 1))

    k = min(n, count)
    hits = sum(is_hit[:n])
    first = next((place for place, hit in enumerate(is_hit, 1) if hit), math.inf)
    return {
        "precision": hits / n,
        "recall": hits / count,
        "hit_rate": float(hits > 0),
        "mrr": 1 / first if first <= n else 0.0,
        "ndcg": dcg(is_hit[:n]) / dcg([True] * k),
        "ndcg_tang": dcg(is_hit[:k]) / dcg([True] * k),
        "ap": sum(sum(is_hit[:place]) / place for place in range(1, length + 1) if is_hit[place - 1]) / count,
    }


@pytest.mark.parametrize("n", [1, 3, 10, 50, 300])
def test_every_metric_equals_the_walk_down_the_list(n):
    generator = np.random.default_rng(n)
    users = []
    for count in [1, 1, 2, 3, 7, 20, 60, *generator.integers(1, 12, 40)]:
        ranks = generator.choice(np.arange(1, 201), count, replace=False).astype(float)
        ranks[generator.random(count) < 0.1] = np.inf
        users.append(ranks)
    offsets = np.concatenate([[0], np.cumsum([len(ranks) for ranks in users])])
    for name, metric in METRICS.items():
        expected = [walk_down_the_list(set(ranks[np.isfinite(ranks)]) | _misses(ranks), n)[name] for ranks in users]
        values = metric(np.concatenate(users), offsets, n)
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, expected, rtol=1e-12, err_msg=name)


def _misses(ranks):
    return {f"miss {nth}" for nth in range(np.count_nonzero(np.isinf(ranks)))}


def test_three_targets_at_ranks_four_to_six_tell_the_two_ndcgs_apart():
    assert one_user(ndcg_tang, [4, 5, 6]) == 0.0
    assert one_user(ndcg, [4, 5, 6]) == pytest.approx(0.551, abs=5e-4)


def test_hand_computed_values_of_one_list():
    ranks = [1, 3, 6]
    assert one_user(precision, ranks, 5) == pytest.approx(2 / 5)
    assert one_user(recall, ranks, 5) == pytest.approx(2 / 3)
    assert one_user(hit_rate, ranks, 5) == 1.0
    assert one_user(mrr, ranks, 5) == 1.0
    assert one_user(ndcg, ranks, 5) == pytest.approx(1.5 / (1 + 1 / math.log2(3) + 0.5))
    assert average_precision(np.array([6.0, 1, 3]), np.array([0, 3]))[0] == pytest.approx((1 + 2 / 3 + 0.5) / 3)


def test_a_perfect_list_scores_one_and_a_list_of_misses_zero():
    for name, metric in METRICS.items():
        assert one_user(metric, [2, 1, 3], 3) == pytest.approx(1.0), name
        assert one_user(metric, [np.inf, np.inf], 3) == 0.0, name


def test_a_target_just_beyond_the_cutoff_counts_for_nothing():
    for name in AT_CUTOFF:
        assert one_user(METRICS[name], [4], 3) == 0.0, name


def test_a_miss_stays_in_the_denominators():
    assert one_user(recall, [1, np.inf]) == 0.5
    assert one_user(METRICS["ap"], [1, np.inf]) == 0.5
    assert one_user(ndcg, [1, np.inf]) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_users_do_not_mix():
    ranks, offsets = np.array([1.0, 9.0, 2.0, 1.0]), np.array([0, 1, 2, 4])
    np.testing.assert_allclose(precision(ranks, offsets, 2), [0.5, 0.0, 1.0])
    np.testing.assert_allclose(average_precision(ranks, offsets), [1.0, 1 / 9, 1.0])
