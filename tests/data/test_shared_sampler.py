"""Shared negatives: how often an item is drawn, and which rows have seen it."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.data.sampling import SharedSampler

# User 2 has seen nothing; user 1 has seen item 4 twice.
USERS = np.array([0, 0, 0, 1, 1, 1, 3, 3, 3, 3, 3], "int32")
ITEMS = np.array([1, 4, 9, 4, 13, 4, 1, 2, 3, 4, 10], "int32")
NUM_ITEMS = 13
DRAWS = 400


def make(samples, distribution="uniform"):
    return SharedSampler(USERS, ITEMS, num_users=4, num_items=NUM_ITEMS, samples=samples, distribution=distribution)


def draws(sampler):
    return np.array([sampler.sample(tf.constant([seed, 3])).numpy() for seed in range(DRAWS)])


def counts(drawn):
    """How often each item comes in each draw, `[draws, items]`, the padding first."""
    return np.array([np.bincount(draw, minlength=NUM_ITEMS + 1) for draw in drawn])


@pytest.mark.parametrize("samples", [1, 5, 12])
def test_a_uniform_draw_takes_every_item_alike_and_none_twice(samples):
    drawn = draws(make(samples))
    assert drawn.shape == (DRAWS, samples)
    by_draw = counts(drawn)
    assert by_draw.max() == 1
    assert by_draw[:, 0].sum() == 0
    share = samples / NUM_ITEMS
    deviation = np.sqrt(share * (1 - share) / DRAWS)
    assert np.abs(by_draw[:, 1:].mean(0) - share).max() < 5 * deviation


def test_a_uniform_draw_of_more_than_there_are_is_the_whole_catalogue():
    np.testing.assert_array_equal(np.sort(draws(make(50))[0]), np.arange(1, NUM_ITEMS + 1))


@pytest.mark.parametrize("samples", [1, 7, 40])
def test_a_draw_by_popularity_follows_the_counts(samples):
    by_draw = counts(draws(make(samples, "popularity")))
    expected = np.bincount(ITEMS, minlength=NUM_ITEMS + 1) / len(ITEMS) * samples
    assert (by_draw[:, expected == 0] == 0).all()
    # One draw of each stratum: no item is more than 2 away from its share.
    assert np.abs(by_draw - expected).max() < 2
    assert np.abs(by_draw.mean(0) - expected).max() < 5 * max(by_draw.std(0).max(), 0.1) / np.sqrt(DRAWS)


def test_the_log_ratio_is_of_the_share_of_rows_to_a_uniform_one():
    assert make(5).log_ratio is None
    for distribution in ("popularity", "in_batch"):
        ratio = make(5, distribution).log_ratio.numpy()
        # Item 4 has 4 of 11 rows, item 9 one, item 5 none.
        np.testing.assert_allclose(ratio[[4, 9, 5]], [np.log(4 / 11 * 13), np.log(1 / 11 * 13), 0.0], rtol=1e-6)


def test_the_seed_decides_the_draw():
    sampler = make(5)
    first, again, other = (sampler.sample(tf.constant(seed)).numpy() for seed in ([4, 5], [4, 5], [4, 6]))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("distribution", ["uniform", "popularity", "in_batch"])
def test_who_has_seen_a_shared_item_and_whose_it_is_among(distribution):
    random = np.random.default_rng(0)
    sampler = make(6, distribution)
    for _ in range(20):
        # Of a uniform draw no item comes twice.
        shared = random.choice(NUM_ITEMS, 6, replace=distribution != "uniform").astype("int32") + 1
        users = random.integers(0, 4, 9).astype("int32")
        seen = [np.isin(shared, ITEMS[user == USERS]) for user in users]
        np.testing.assert_array_equal(sampler.is_seen(shared, users), seen)
        rows, items = random.integers(0, 9, 30).astype("int32"), random.integers(0, NUM_ITEMS + 1, 30).astype("int32")
        among = [np.isin(shared, items[(rows == row) & (items > 0)]) for row in range(9)]
        np.testing.assert_array_equal(sampler.is_among(shared, rows, items, 9), among)


def test_the_padding_is_among_no_ones_items():
    shared = np.array([0, 3, 0], "int32")
    among = make(3, "in_batch").is_among(shared, np.array([0, 0, 1], "int32"), np.array([0, 3, 0], "int32"), 2)
    np.testing.assert_array_equal(among, [[False, True, False], [False, False, False]])


@pytest.mark.parametrize(
    ("samples", "distribution", "message"),
    [
        (0, "uniform", "samples must be at least 1; received 0"),
        (5, "zipf", "must be one of uniform, .* received 'zipf'"),
    ],
)
def test_an_argument_out_of_range_is_named(samples, distribution, message):
    with pytest.raises(ValueError, match=message):
        make(samples, distribution)
