"""Sets of pairs as numbers."""

import numpy as np
import pytest

from rd_tf.data.interactions import distinct_keys


@pytest.mark.parametrize("rows", [0, 1, 2, 500])
def test_every_pair_is_one_ascending_number(rows):
    random = np.random.default_rng(rows)
    users, items = random.integers(0, 5, rows, np.int32), random.integers(0, 8, rows, np.int32)
    expected = sorted({int(user) * 8 + int(item) for user, item in zip(users, items, strict=True)})
    found = distinct_keys(users, items, 8)
    assert found.tolist() == expected
    assert found.dtype == np.int64


def test_pairs_of_large_numbers_fit():
    assert distinct_keys(np.array([2**31 - 1], np.int32), np.array([7], np.int32), 2**31).tolist() == [
        (2**31 - 1) * 2**31 + 7
    ]
