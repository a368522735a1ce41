"""The random world that benchmarks run on."""

import numpy as np
import pytest

from benchmarks.world import load_world, random_world
from rd_tf.data.windows import make_windows, split_interactions
from rd_tf.storage import InputError


def test_a_world_has_exactly_the_windows_asked_for():
    world = random_world(num_users=50, num_items=200, num_windows=777, seed=3)
    windows = make_windows(world, split_interactions(world, "test").train, 5, 1)
    assert len(windows) == 777
    assert (world.num_users, world.num_items) == (50, 200)
    assert len(np.unique(windows.users)) == 50


def test_items_are_numbered_from_1_and_some_are_popular():
    items = random_world(100, 400, 20_000, 0).items
    assert items.min() >= 1
    assert items.max() <= 400
    counts = np.sort(np.bincount(items, minlength=401)[1:])[::-1]
    # Half of the visits go to the first quarter of the items.
    assert counts[:100].sum() / counts.sum() == pytest.approx(0.5, abs=0.05)


def test_the_same_seed_gives_the_same_world():
    one, other, third = (random_world(20, 50, 100, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.items, other.items)
    assert not np.array_equal(one.items[:100], third.items[:100])


def test_too_few_windows_are_refused():
    with pytest.raises(ValueError, match="received 3 windows for 5 users"):
        random_world(5, 50, 3, 0)


def test_a_dataset_that_is_none_is_refused():
    with pytest.raises(InputError, match="--dataset=/nowhere is not a directory"):
        load_world("/nowhere", 0)
