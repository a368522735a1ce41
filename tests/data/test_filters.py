"""Repeated visits, k-core and numbering, by hand and against slow oracles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_tf.data.interactions import drop_duplicates, k_core, to_interactions

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40)


def columns(rows, width):
    return np.array(rows, np.int64).reshape(-1, width).T


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("keep_last", [False, True, True, False, True]),
        ("keep_first", [True, False, True, True, False]),
        ("keep_all", [True] * 5),
    ],
)
def test_duplicates_go_by_time_and_equal_times_by_order(how, expected):
    #        user, item, time: (0, 1) is visited at 5 and 9, (1, 1) twice at 3.
    users, items, times = columns([(0, 1, 5), (0, 1, 9), (0, 2, 7), (1, 1, 3), (1, 1, 3)], 3)
    assert drop_duplicates(users, items, times, how).tolist() == expected


def test_keep_last_keeps_the_latest_even_if_it_comes_first_in_the_file():
    users, items, times = columns([(0, 1, 9), (0, 1, 5)], 3)
    assert drop_duplicates(users, items, times, "keep_last").tolist() == [True, False]


def test_unknown_duplicates_setting():
    with pytest.raises(ValueError, match="duplicates must be one of keep_last, keep_first, keep_all; received 'some'"):
        drop_duplicates(*columns([(0, 0, 0)], 3), "some")


def test_k_core_drops_in_a_chain():
    # Item 2 has one user; without it user 1 has one item, and without user 1 item 1 has one user.
    users, items = columns([(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 3), (3, 0), (3, 3), (0, 3)], 2)
    core = k_core(users, items, 2, 2)
    assert core.keep.tolist() == [True, False, False, False, True, True, True, True, True]
    assert core.rounds == 3


def test_k_core_counts_distinct_items():
    users, items = columns([(0, 0), (0, 0), (0, 0), (1, 0), (1, 1)], 2)
    assert k_core(users, items, 2, 1).keep.tolist() == [False, False, False, True, True]


def test_k_core_of_one_drops_nothing():
    core = k_core(*columns([(0, 0), (5, 5)], 2), 1, 1)
    assert (core.keep.tolist(), core.rounds) == ([True, True], 0)


@given(PAIRS, st.integers(1, 4), st.integers(1, 4))
def test_k_core_is_the_oracles_fixed_point(pairs, min_user_items, min_item_users):
    alive = set(pairs)
    while True:
        smaller = {
            (user, item)
            for user, item in alive
            if sum(other == user for other, _ in alive) >= min_user_items
            and sum(other == item for _, other in alive) >= min_item_users
        }
        if smaller == alive:
            break
        alive = smaller
    keep = k_core(*columns(pairs, 2), min_user_items, min_item_users).keep
    assert keep.tolist() == [pair in alive for pair in pairs]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_keep_last_is_the_oracles(rows):
    last = {}
    for row, (user, item, time) in enumerate(rows):
        if (user, item) not in last or time >= rows[last[user, item]][2]:
            last[user, item] = row
    keep = drop_duplicates(*columns(rows, 3), "keep_last")
    assert np.flatnonzero(keep).tolist() == sorted(last.values())


def test_numbers_follow_the_first_row_and_rows_are_sorted_stably():
    #       user, item, time
    rows = [(2, 0, 9), (1, 3, 5), (2, 3, 4), (1, 0, 5)]
    interactions = to_interactions(*columns(rows, 3), ["u0", "u1", "u2"], ["i0", "i1", "i2", "i3"])
    assert interactions.user_ids == ["u2", "u1"]
    assert interactions.item_ids == ["i0", "i3"]
    assert interactions.users.tolist() == [0, 0, 1, 1]
    assert interactions.items.tolist() == [2, 1, 2, 1]
    assert interactions.timestamps.tolist() == [4, 9, 5, 5]
    dtypes = [array.dtype.name for array in (interactions.users, interactions.items, interactions.timestamps)]
    assert dtypes == ["int32", "int32", "int64"]
