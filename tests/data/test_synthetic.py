"""The built-in world: repeatable, and with the structure it promises."""

import numpy as np
import pytest

from rd_tf.command_line import choose, default_flags
from rd_tf.data.dataset import load_dataset
from rd_tf.data.synthetic import synthetic_interactions
from rd_tf.data.windows import synthetic_dataset
from rd_tf.prepare import prepare


@pytest.fixture(scope="module")
def world():
    return synthetic_interactions(num_users=2000, num_items=1200, mean_visits=40, seed=3)


def test_the_seed_decides_the_world():
    make = lambda seed: synthetic_interactions(50, 60, 20, seed).fingerprint()  # noqa: E731
    assert make(1) == make(1)
    assert make(1) != make(2)


def test_rows_are_sorted_by_user_and_time_and_numbered_without_gaps(world):
    order = np.lexsort((world.timestamps, world.users))
    np.testing.assert_array_equal(order, np.arange(len(world)))
    assert set(world.users.tolist()) == set(range(2000))
    assert set(world.items.tolist()) == set(range(1, world.num_items + 1))


def test_histories_have_the_asked_mean_and_none_is_short(world):
    counts = np.bincount(world.users)
    assert counts.min() >= 8
    assert counts.mean() == pytest.approx(40, rel=0.05)


def test_popularity_has_a_long_tail(world):
    counts = np.sort(np.bincount(world.items)[1:])[::-1]
    assert counts[: len(counts) // 10].sum() > 0.4 * counts.sum()


def test_a_visit_follows_the_one_before(world):
    same_user = world.users[1:] == world.users[:-1]
    pairs = np.stack([world.items[:-1], world.items[1:]], 1)[same_user]
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    shuffled = np.stack([pairs[:, 0], np.random.default_rng(0).permutation(pairs[:, 1])], 1)
    _, chance = np.unique(shuffled, axis=0, return_counts=True)
    # Were visits independent, pairs would repeat as often as after a shuffle.
    assert (counts**2).sum() > 5 * (chance**2).sum()


@pytest.mark.parametrize("sizes", [(0, 100, 20), (10, 19, 20), (10, 100, 7)])
def test_a_world_too_small_is_refused(sizes):
    with pytest.raises(ValueError, match="needs at least 1 user, 20 items and 8 visits a user"):
        synthetic_interactions(*sizes, seed=0)


def test_the_dataset_of_the_world_is_what_prepare_writes(tmp_path):
    flags = {"synthetic_users": 60, "synthetic_items": 80, "synthetic_visits": 30.0, "min_user_items": 3}
    prepared = {**flags, "min_item_users": 3, "format": "synthetic", "dataset": str(tmp_path / "world"), "seed": 4}
    prepare(**choose(prepare, default_flags(prepare), **prepared))
    expected = load_dataset(tmp_path / "world").fingerprint()
    assert synthetic_dataset(60, 80, 30.0, seed=4, core=3).interactions.fingerprint() == expected
