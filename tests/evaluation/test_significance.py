"""Paired tests against scipy and by hand, Holm's correction against a plain oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rd_tf.evaluation.significance import compare_paired, holm


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


def test_the_last_bits_of_float32_break_no_tie():
    ours = np.tile(np.float32([0.4, 0.6, 0.2]).astype(np.float64), 20)
    reference = np.tile(np.float32([0.2, 0.4, 0.2]).astype(np.float64), 20) + 1e-9
    clean = compare_paired(np.tile([0.4, 0.6, 0.2], 20), np.tile([0.2, 0.4, 0.2], 20))
    assert compare_paired(ours, reference).wilcoxon_p == clean.wilcoxon_p


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


def test_holm_by_hand():
    # Sorted .01, .02, .03 times 3, 2, 1 is .03, .04, .03; a later one is never below an earlier one.
    assert holm(np.array([0.02, 0.01, 0.03])) == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([0.5, 0.6])) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=14), st.floats(0.001, 0.999))
def test_holm_rejects_what_its_steps_reject(p_values, level):
    rejected = set()
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(int(index))
    assert {int(i) for i in np.flatnonzero(holm(np.array(p_values)) <= level)} == rejected
