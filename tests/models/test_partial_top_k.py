"""The two-stage top-k against a full stable sort."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.models.ranker import partial_top_k


def slow_top_k(scores, k):
    columns = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, columns, 1), columns


def assert_equal_to_a_sort(scores, k):
    values, columns = partial_top_k(tf.constant(scores), k)
    expected_values, expected_columns = slow_top_k(scores, k)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(columns, expected_columns)


@pytest.mark.parametrize("k", [1, 2, 10, 33])
@pytest.mark.parametrize("columns", [64, 257, 1000, 1024, 4099])
@pytest.mark.parametrize("distinct", [1, 2, 5, 300, None])
def test_values_and_columns_equal_a_full_sort(k, columns, distinct):
    random = np.random.default_rng(k * columns)
    scores = random.normal(size=(7, columns)) if distinct is None else random.integers(0, distinct, (7, columns))
    assert_equal_to_a_sort(scores.astype(np.float32), k)


@pytest.mark.parametrize("columns", [1, 2, 5, 100, 500])
def test_k_may_be_all_columns(columns):
    scores = np.random.default_rng(0).integers(0, 4, (3, columns)).astype(np.float32)
    for k in {1, (columns + 1) // 2, columns}:
        assert_equal_to_a_sort(scores, k)


@pytest.mark.parametrize("finite", [0, 1, 4, 9])
def test_rows_that_are_infinite_but_for_a_few_scores(finite):
    random = np.random.default_rng(finite)
    scores = np.full((20, 515), -np.inf, np.float32)
    for row in scores:
        row[random.choice(515, finite, replace=False)] = random.integers(-2, 2, finite)
    assert_equal_to_a_sort(scores, 6)


@pytest.mark.parametrize("step", [1, -1])
def test_the_best_may_all_be_in_one_chunk_or_in_the_rest_after_the_last(step):
    scores = np.tile(np.arange(1003, dtype=np.float32)[::step], (2, 1))
    assert_equal_to_a_sort(scores, 5)


def test_a_graph_takes_any_number_of_rows():
    graph = tf.function(lambda scores: partial_top_k(scores, 5), input_signature=[tf.TensorSpec([None, 777])])
    random = np.random.default_rng(0)
    for rows in (0, 1, 9):
        scores = random.integers(0, 40, (rows, 777)).astype(np.float32)
        for found, expected in zip(graph(scores), slow_top_k(scores, 5), strict=True):
            assert found.shape == (rows, 5)
            np.testing.assert_array_equal(found, expected)
    assert graph.experimental_get_tracing_count() == 1
