"""The best items of rows of scores against a full stable sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_tf.teacher.scoring import best_items


def slow_best_items(scores, exclude, k):
    scores = scores.copy()
    for row, hidden in zip(scores, exclude, strict=True):
        row[[0, *hidden]] = -np.inf
    items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, items, 1)
    return np.where(values == -np.inf, 0, items), values


def assert_equal_to_a_sort(scores, exclude, k):
    items, values = best_items(scores, exclude, k)
    expected_items, expected_values = slow_best_items(scores, exclude, k)
    np.testing.assert_array_equal(items, expected_items)
    np.testing.assert_array_equal(values, expected_values)
    assert items.dtype == np.int32
    assert values.dtype == np.float32


@pytest.mark.parametrize("k", [1, 2, 10, 33])
@pytest.mark.parametrize("columns", [64, 257, 1024, 4099])
@pytest.mark.parametrize("distinct", [1, 2, 300, None])
@pytest.mark.parametrize("excluded", [0, 1, 25])
def test_items_and_scores_equal_a_full_sort(k, columns, distinct, excluded):
    random = np.random.default_rng(k * columns)
    scores = random.normal(size=(7, columns)) if distinct is None else random.integers(0, distinct, (7, columns))
    exclude = random.integers(0, columns, (7, excluded), dtype=np.int32)
    assert_equal_to_a_sort(scores.astype(np.float32), exclude, k)


def test_the_best_that_are_all_excluded():
    scores = np.tile(np.arange(3001, dtype=np.float32), (2, 1))
    best = np.arange(3000, 2900, -1, dtype=np.int32)
    assert_equal_to_a_sort(scores, np.stack([best, np.roll(best, 7)]), 10)


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize(("columns", "k"), [(1010, 5), (3001, 2), (1599, 1), (14010, 10)])
def test_the_best_may_be_neighbours_or_the_rest_after_the_last_chunk(step, columns, k):
    assert_equal_to_a_sort(np.tile(np.arange(columns, dtype=np.float32)[::step], (2, 1)), np.zeros((2, 1), np.int32), k)


@given(columns=st.integers(2, 4000), k=st.integers(1, 12), seed=st.integers(0, 99))
def test_any_catalogue_and_k(columns, k, seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 50, (2, columns)).astype(np.float32)
    assert_equal_to_a_sort(scores, random.integers(0, columns, (2, 3), dtype=np.int32), min(k, columns - 1))


@pytest.mark.parametrize("columns", [2, 5, 100, 500])
def test_k_may_be_the_whole_catalogue(columns):
    scores = np.random.default_rng(0).integers(0, 4, (3, columns)).astype(np.float32)
    assert_equal_to_a_sort(scores, np.zeros((3, 0), np.int32), columns - 1)
    assert_equal_to_a_sort(scores, np.ones((3, 1), np.int32), columns - 1)


@pytest.mark.parametrize("column", [1, 700, 1002])
def test_one_nan_empties_its_row_only(column):
    scores = np.random.default_rng(0).normal(size=(3, 1003)).astype(np.float32)
    scores[1, column] = np.nan
    items, values = best_items(scores, np.zeros((3, 1), np.int32), 4)
    assert (values[1] == -np.inf).all()
    assert not items[1].any()
    assert np.isfinite(values[[0, 2]]).all()


def test_no_rows():
    items, values = best_items(np.zeros((0, 50), np.float32), np.zeros((0, 2), np.int32), 3)
    assert items.shape == values.shape == (0, 3)
