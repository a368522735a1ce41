"""Paired tests against scipy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rd_tf.evaluation.metrics import compare_paired


def test_the_t_test_and_its_interval_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.4641 with 2 degrees of freedom.
    found = compare_paired(np.array([11.0, 12.0, 13.0]), np.array([10.0, 10.0, 10.0]))
    assert (found.n, found.difference, found.percent) == (3, 2.0, 20.0)
    assert found.t_p == pytest.approx(0.0741799)
    half = 4.302653 / np.sqrt(3)
    assert (found.percent_low, found.percent_high) == pytest.approx((10 * (2 - half), 10 * (2 + half)), rel=1e-6)


def test_the_signed_rank_test_by_hand():
    # All six differences are positive and distinct: 2 of 2^6 sign patterns are as extreme.
    found = compare_paired(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.zeros(6))
    assert found.wilcoxon_p == pytest.approx(2 / 64)


def test_zero_differences_are_ranked_and_then_dropped():
    # Pratt: the four zeros take ranks 1 to 4, the others 5, 6 and 7; W = 5 against a mean of 9 over sqrt(110 / 4).
    found = compare_paired(np.array([0.0, 0, 0, 0, -1, 2, 3]), np.zeros(7))
    assert found.wilcoxon_p == pytest.approx(2 * stats.norm.sf((9 - 5) / np.sqrt(110 / 4)))


@given(st.integers(0, 10_000), st.integers(20, 200))
def test_p_values_are_those_of_scipy(seed, n):
    generator = np.random.default_rng(seed)
    ours, reference = generator.integers(0, 4, (2, n)) / 4
    found = compare_paired(ours, reference)
    assert found.t_p == pytest.approx(stats.ttest_rel(ours, reference).pvalue)
    assert found.wilcoxon_p == pytest.approx(
        stats.wilcoxon(ours - reference, zero_method="pratt", method="approx").pvalue
    )
    interval = stats.ttest_rel(ours, reference).confidence_interval(0.95)
    expected = 100 * np.array([interval.low, interval.high]) / reference.mean()
    assert (found.percent_low, found.percent_high) == pytest.approx(tuple(expected))


def test_the_last_bits_break_no_tie():
    ours, reference = np.tile([0.4, 0.6, 0.2], 20), np.tile([0.2, 0.4, 0.2], 20)
    clean = compare_paired(ours, reference)
    assert compare_paired(ours, reference + np.tile([1e-16, -1e-16], 30)).wilcoxon_p == clean.wilcoxon_p


def test_one_rank_in_thousands_is_a_difference():
    # Average precision of one held-out item is 1 / rank; half of the users have it one rank higher.
    ranks = np.linspace(1000, 14_000, 500).round()
    reference = 1 / ranks
    ours = np.where(np.arange(500) % 2, 1 / (ranks - 1), reference)
    found = compare_paired(ours, reference)
    assert found.t_p == pytest.approx(stats.ttest_rel(ours, reference).pvalue, rel=1e-4)
    expected = stats.wilcoxon(ours - reference, zero_method="pratt", method="approx").pvalue
    assert found.wilcoxon_p == pytest.approx(expected, rel=1e-9)
    assert found.percent == pytest.approx(100 * (ours.mean() / reference.mean() - 1), rel=1e-4)


def test_equal_rankers_do_not_differ():
    found = compare_paired(np.array([0.5, 0.25]), np.array([0.5, 0.25]))
    assert (found.difference, found.t_p, found.wilcoxon_p) == (0.0, 1.0, 1.0)


def test_equal_differences_are_beyond_chance():
    assert compare_paired(np.array([0.75, 1.0]), np.array([0.5, 0.75])).t_p == 0.0


def test_one_seed_tests_nothing():
    found = compare_paired(np.array([0.6]), np.array([0.5]))
    assert found.percent == pytest.approx(20.0)
    assert np.isnan([found.t_p, found.percent_low, found.percent_high]).all()


@pytest.mark.parametrize(("ours", "reference"), [([1.0], [1.0, 2.0]), ([], []), ([[1.0]], [[1.0]])])
def test_what_is_no_pair_of_vectors_is_refused(ours, reference):
    with pytest.raises(ValueError, match="two equally long vectors"):
        compare_paired(np.array(ours), np.array(reference))
