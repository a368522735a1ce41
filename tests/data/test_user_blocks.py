"""Blocks of user-sorted rows."""

import numpy as np
import pytest

from rd_tf.data.windows import user_blocks


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, [(0, 3), (3, 4), (4, 6), (6, 7)]),
        (3, [(0, 3), (3, 6), (6, 7)]),
        (4, [(0, 4), (4, 7)]),
        (100, [(0, 7)]),
    ],
)
def test_rows_are_cut_between_users(rows, expected):
    users = np.array([0, 0, 0, 2, 5, 5, 6], np.int32)
    assert [(block.start, block.stop) for block in user_blocks(users, rows)] == expected


def test_no_rows_are_no_block():
    assert list(user_blocks(np.zeros(0, np.int32))) == []
