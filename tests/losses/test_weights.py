"""Weights of a teacher's list: by hand and by the authors' numbers."""

import numpy as np
import pytest

from rd_tf.losses.weights import (
    discrepancy_weight,
    estimate_student_rank,
    exact_student_rank,
    hybrid_weight,
    position_weight,
)


def test_position_weight_by_hand():
    raw = np.exp([-0.5, -1.0, -1.5])
    np.testing.assert_allclose(position_weight(3, 2.0), raw / raw.sum(), rtol=1e-6)


def test_position_weight_stays_finite_at_a_tiny_temperature():
    np.testing.assert_allclose(position_weight(4, 1e-6), [1, 0, 0, 0], atol=1e-7)


def test_rank_estimate_by_hand():
    # 1 of 4 sampled items scores higher than 0.5, all 4 score higher than -1: floor(10 / 4) = 2 and 10.
    rank = estimate_student_rank(np.array([[0.5, -1.0]]), np.array([[0.0, 0.2, 0.9, 0.5]]), num_items=10)
    np.testing.assert_array_equal(rank, [[2, 10]])


def test_exact_rank_counts_higher_scores_and_never_the_padding():
    scores = np.array([[-np.inf, 3.0, 1.0, 2.0, 2.0]], "float32")
    np.testing.assert_array_equal(exact_student_rank(scores[:, [1, 3, 2]], scores), [[0, 1, 3]])


def test_discrepancy_weight_by_hand():
    # Teacher's ranks are 0, 1, 2: the student is level, 3 behind, and ahead.
    weight = discrepancy_weight(np.array([[0.0, 4.0, 0.0]]), sharpness=0.1)
    np.testing.assert_allclose(weight, [[0.0, np.tanh(0.3), 0.0]], rtol=1e-6)


def test_hybrid_weight_with_and_without_renormalization():
    position, discrepancy = np.array([0.75, 0.25], "float32"), np.array([[0.5, 0.5], [0.0, 0.0]], "float32")
    np.testing.assert_allclose(hybrid_weight(position, discrepancy), [[0.375, 0.125], [0, 0]])
    np.testing.assert_allclose(hybrid_weight(position, discrepancy, renormalize=True), [[0.75, 0.25], [0, 0]])


def test_position_weight_agrees_with_the_authors(conformance):
    case = conformance("weights")
    expected = np.array(case["position_only"]["weight"])
    np.testing.assert_allclose(np.tile(position_weight(case["K"], case["lamda"]), (8, 1)), expected, rtol=1e-5)


@pytest.mark.parametrize("index", range(4))
def test_hybrid_weight_agrees_with_the_authors(conformance, index):
    case = conformance("weights")
    row = case["hybrid"][index]
    # Their num_items counts the padding row.
    rank = estimate_student_rank(
        np.array(row["candidates"], "float32"), np.array(row["sampled"], "float32"), case["num_items"] - 1
    )
    weight = hybrid_weight(position_weight(case["K"], case["lamda"]), discrepancy_weight(rank, case["mu"]))
    np.testing.assert_allclose(weight, row["weight"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: position_weight(0, 1.0), "list_length must be at least 1; received 0"),
        (lambda: position_weight(3, 0.0), "temperature must be above 0; received 0.0"),
        (lambda: position_weight(3, float("nan")), "temperature must be above 0; received nan"),
        (lambda: discrepancy_weight(np.zeros((1, 2)), -0.1), "sharpness must be at least 0; received -0.1"),
    ],
)
def test_an_argument_out_of_range_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
