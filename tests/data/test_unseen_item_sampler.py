"""Negatives: never seen, uniform, reproducible."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.data.sampling import UnseenItemSampler, bit_rows
from rd_tf.storage import InputError

USERS = np.array([0, 0, 0, 1, 1, 3, 3, 3, 3, 3])
ITEMS = np.array([1, 4, 4, 10, 2, 1, 2, 3, 4, 10])


def sampler():
    return UnseenItemSampler(USERS, ITEMS, num_users=4, num_items=10)


def test_every_unseen_item_is_drawn_and_none_that_was_seen():
    drawn = sampler().sample(tf.range(4), 2000, tf.constant([1, 2])).numpy()
    for user in range(4):
        assert set(drawn[user].tolist()) == set(range(1, 11)) - set(ITEMS[user == USERS].tolist())


def test_a_draw_is_the_nth_of_the_users_unseen_items():
    random = np.random.default_rng(0)
    num_users, num_items = 40, 60
    # Users with no, few and many items, some of them twice, in any order.
    users = random.integers(0, num_users - 1, 800) ** 2 // num_users
    items = random.integers(1, num_items + 1, 800)
    drawn_for, seed = random.integers(0, num_users, 500), tf.constant([3, 4])
    drawn = UnseenItemSampler(users, items, num_users, num_items).sample(tf.constant(drawn_for, tf.int32), 7, seed)
    fractions = bit_rows(seed, 0, 500, 7).numpy().astype(np.uint32)
    for row, user in enumerate(drawn_for):
        unseen = np.setdiff1d(np.arange(1, num_items + 1), items[users == user])
        np.testing.assert_array_equal(drawn[row], unseen[fractions[row].astype(np.int64) * len(unseen) >> 32])


def test_nobody_has_seen_anything():
    nothing = UnseenItemSampler(np.zeros(0, np.int32), np.zeros(0, np.int32), num_users=2, num_items=5)
    drawn = nothing.sample(tf.range(2), 500, tf.constant([1, 2])).numpy()
    assert [set(row) for row in drawn.tolist()] == [{1, 2, 3, 4, 5}] * 2


def test_draws_are_uniform():
    drawn = sampler().sample(tf.constant([0]), 80_000, tf.constant([5, 6])).numpy()
    counts = np.bincount(drawn[0], minlength=11)[[2, 3, 5, 6, 7, 8, 9, 10]]
    # 10,000 expected each, standard deviation 94.
    assert np.abs(counts - 10_000).max() < 5 * 94


def test_the_seed_decides_the_draws():
    draw = lambda seed: sampler().sample(tf.range(4), 50, tf.constant(seed)).numpy()  # noqa: E731
    np.testing.assert_array_equal(draw([1, 2]), draw([1, 2]))
    assert (draw([1, 2]) != draw([1, 3])).any()


def test_a_large_catalogue_stays_in_range():
    many = UnseenItemSampler(np.zeros(2, int), np.array([1, 3_000_000]), num_users=1, num_items=3_000_000)
    drawn = many.sample(tf.constant([0]), 50_000, tf.constant([0, 1])).numpy()
    assert drawn.min() >= 2
    assert drawn.max() <= 2_999_999
    assert drawn.max() > 2_900_000


def test_for_a_user_who_saw_everything_the_padding_is_drawn():
    full = UnseenItemSampler(np.array([0, 1, 1, 3, 3]), np.array([1, 1, 2, 2, 1]), num_users=4, num_items=2)
    assert full.full_users == 2
    drawn = full.sample(tf.range(4), 50, tf.constant([1, 2])).numpy()
    assert [set(row) for row in drawn.tolist()] == [{2}, {0}, {1, 2}, {0}]


def test_users_who_all_saw_everything_are_refused():
    with pytest.raises(InputError, match="all 2 users have seen all 1 items in training"):
        UnseenItemSampler(np.array([0, 1]), np.array([1, 1]), num_users=2, num_items=1)
