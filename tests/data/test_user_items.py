"""Users' items: padded rows, and histories of users and windows against plain loops."""

import numpy as np
import pytest

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import UserItems, make_windows

USERS = np.array([0, 0, 0, 2, 2, 2, 2, 2, 3], "int32")
ITEMS = np.array([5, 1, 9, 2, 5, 2, 7, 3, 4], "int32")


def test_padded_rows_are_as_wide_as_the_longest_of_them():
    items = UserItems(USERS, ITEMS, 4)
    assert items.longest == 5
    assert items.padded(np.array([0, 3, 1])).tolist() == [[5, 1, 9], [4, 0, 0], [0, 0, 0]]
    assert items.padded(np.array([1])).tolist() == [[0]]


def test_last_items_are_padded_on_the_left():
    assert UserItems(USERS, ITEMS, 4).last(np.array([3, 1, 0, 2]), 3).tolist() == [
        [0, 0, 4],
        [0] * 3,
        [5, 1, 9],
        [2, 7, 3],
    ]


def test_a_user_has_his_own_items_only():
    asked = np.array([[5, 9, 0, 10, 1], [5, 9, 0, 10, 1], [2, 4, 3, 9, 11]])
    assert UserItems(USERS, ITEMS, 4).has(np.array([0, 1, 2], "int32"), asked).tolist() == [
        [True, True, False, False, True],
        [False] * 5,
        [True, False, True, False, False],
    ]
    assert not UserItems(USERS[:0], ITEMS[:0], 4).has(np.array([3]), np.array([[0, 1]])).any()


def test_histories_of_users_come_in_time_order_and_may_be_empty():
    items, rows = UserItems(USERS, ITEMS, 4).histories(np.array([3, 1, 0, 0]))
    assert items.tolist() == [4, 5, 1, 9, 5, 1, 9]
    assert rows.tolist() == [0, 2, 2, 2, 3, 3, 3]
    assert items.dtype == rows.dtype == np.int32


@pytest.mark.parametrize("kind", ["before", "all"])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(("sequence_length", "target_length"), [(1, 1), (2, 2), (3, 1), (6, 2)])
def test_window_histories_equal_a_plain_loop(kind, sequence_length, target_length, short):
    ids = ([f"u{user}" for user in range(4)], [f"i{item}" for item in range(9)])
    interactions = Interactions(USERS, ITEMS, np.arange(9), *ids)
    windows = make_windows(interactions, np.ones(9, bool), sequence_length, target_length, short)
    chosen = np.random.default_rng(0).permutation(len(windows))
    items, place = UserItems(USERS, ITEMS, 4).window_histories(windows, chosen, kind)
    np.testing.assert_array_equal(
        UserItems(USERS, ITEMS, 4).before(windows, chosen, sequence_length), windows.sequences[chosen]
    )
    for number, row in enumerate(chosen):
        own = ITEMS[windows.users[row] == USERS].tolist()
        end = windows.positions[row] + 1
        begin = max(0, end - target_length)
        expected = own[:begin] + (own[end:] if kind == "all" else [])
        assert items[place == number].tolist() == expected
    assert (np.diff(place) >= 0).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be before or all; received 'none'"):
        UserItems(USERS, ITEMS, 4).window_histories(None, np.zeros(0, int), "none")


def test_no_windows_have_no_histories():
    items = UserItems(USERS, ITEMS, 4)
    interactions = Interactions(USERS, ITEMS, np.arange(9), ["u"] * 4, ["i"] * 9)
    windows = make_windows(interactions, np.ones(9, bool), 2)
    for kind in ("before", "all"):
        assert [len(part) for part in items.window_histories(windows, np.zeros(0, int), kind)] == [0, 0]
