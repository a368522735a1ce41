"""Rank samples: uniform, distinct, reproducible, and unseen exactly where the user has not been."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.data.sampling import GROUP, RankSampler

# User 2 has seen nothing; user 1 has seen item 4 twice.
USERS = np.array([0, 0, 0, 1, 1, 1, 3, 3, 3, 3, 3], "int32")
ITEMS = np.array([1, 4, 9, 4, 13, 4, 1, 2, 3, 4, 10], "int32")
NUM_ITEMS = 13


def draw(samples, users, seed=(1, 2)):
    sampler = RankSampler(USERS, ITEMS, num_users=4, num_items=NUM_ITEMS, samples=samples)
    items, is_unseen = sampler.sample(tf.constant(users, tf.int32), tf.constant(seed))
    return items.numpy(), is_unseen.numpy()


@pytest.mark.parametrize("samples", [1, 4, 5, 13])
def test_an_item_is_unseen_exactly_where_it_is_not_among_the_users_own(samples):
    users = np.random.default_rng(0).integers(0, 4, 3 * GROUP + 5)
    found_seen = 0
    for seed in range(20):
        items, is_unseen = draw(samples, users, (seed, 0))
        assert items.shape == (4, samples)
        assert is_unseen.shape == (len(users), samples)
        for row, user in enumerate(users):
            expected = ~np.isin(items[row // GROUP], ITEMS[user == USERS])
            np.testing.assert_array_equal(is_unseen[row], expected)
            found_seen += (~expected).sum()
    assert found_seen > 0


@pytest.mark.parametrize("samples", [1, 4, 5, 12])
def test_every_item_is_equally_likely_and_none_comes_twice(samples):
    draws = [draw(samples, np.zeros(GROUP * 50), (seed, 3))[0] for seed in range(300)]
    items = np.concatenate(draws)
    assert all(len(set(row)) == samples for row in items.tolist())
    counts = np.bincount(items.ravel(), minlength=NUM_ITEMS + 1)
    assert counts[0] == 0
    expected = len(items) * samples / NUM_ITEMS
    # Groups of a step share a rotation, so the 300 steps are what is independent: 5 standard deviations of their mean.
    by_step = np.array([np.bincount(step.ravel(), minlength=NUM_ITEMS + 1)[1:] for step in draws])
    deviation = by_step.std(0).max() * len(draws) ** 0.5
    assert np.abs(counts[1:] - expected).max() < 5 * deviation


def test_more_samples_than_items_are_the_whole_catalogue():
    items, _ = draw(50, [0, 1])
    np.testing.assert_array_equal(np.sort(items[0]), np.arange(1, NUM_ITEMS + 1))


def test_the_seed_decides_the_draws():
    np.testing.assert_array_equal(draw(5, [0, 1, 2], (4, 5))[0], draw(5, [0, 1, 2], (4, 5))[0])
    assert (draw(5, [0, 1, 2], (4, 5))[0] != draw(5, [0, 1, 2], (4, 6))[0]).any()


def test_groups_draw_apart():
    items, _ = draw(6, np.zeros(GROUP + 1))
    assert set(items[0].tolist()) != set(items[1].tolist())


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="samples must be at least 1; received 0"):
        draw(0, [0])
