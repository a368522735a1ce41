"""A sharded array gives the rows that the concatenation of its parts would."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_tf.data.teacher_lists import ShardedArray


def parts_of(lengths, columns=(3,)):
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    whole = np.arange(bounds[-1] * int(np.prod(columns)), dtype=np.int32).reshape(-1, *columns)
    return whole, [whole[begin:end] for begin, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize("rows", [[3], [0, 8], [8, 0, 5, 5, 2], [4, 3], [], list(range(9)), list(range(9))[::-1]])
def test_rows_in_any_order_repeated_and_across_parts(rows):
    whole, parts = parts_of([4, 0, 3, 2, 0])
    rows = np.array(rows, np.int64)
    taken = ShardedArray(parts)[rows]
    np.testing.assert_array_equal(taken, whole[rows])
    assert (taken.shape, taken.dtype) == (whole[rows].shape, np.int32)


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    rows=st.lists(st.integers(0, 10**6), max_size=20),
    columns=st.sampled_from([(), (2,), (2, 3)]),
)
def test_any_parts_and_rows(lengths, rows, columns):
    whole, parts = parts_of(lengths, columns)
    chosen = np.array(rows, np.int32) % len(whole) if len(whole) else np.zeros(0, np.int32)
    array = ShardedArray(parts)
    np.testing.assert_array_equal(array[chosen], whole[chosen])
    assert (array.shape, array.dtype, len(array)) == (whole.shape, whole.dtype, len(whole))


def test_memory_maps_stay_memory_maps(tmp_path):
    np.save(tmp_path / "part.npy", np.ones((2, 3)))
    array = ShardedArray([np.load(tmp_path / "part.npy", mmap_mode="r")[:, :2]] * 2)
    assert all(isinstance(part, np.memmap) for part in array.parts)
    assert array.shape == (4, 2)
    assert type(array[np.array([1, 2])]) is np.ndarray


@pytest.mark.parametrize("row", [-1, 7])
def test_a_row_that_is_not_there_is_refused(row):
    array = ShardedArray(parts_of([4, 3])[1])
    with pytest.raises(IndexError, match=rf"rows must be from 0 to 6; received {min(row, 2)} to {max(row, 2)}"):
        array[np.array([row, 2])]


@pytest.mark.parametrize("parts", [[], [np.zeros((2, 3)), np.zeros((2, 2))], [np.zeros(2), np.zeros(2, np.int32)]])
def test_parts_that_do_not_fit_together_are_refused(parts):
    with pytest.raises(ValueError, match="parts must be of one shape but for the rows, and of one type"):
        ShardedArray(parts)
