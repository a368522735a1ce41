"""Windows that are cut shard by shard are those of the whole dataset."""

import numpy as np
import pytest

from rd_tf.data.dataset import load_shard, save_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Dataset, UserItems, cut_shard, make_windows, split_interactions, windows_fingerprint

# Users without rows (unseen in the shard, at its end), with few, with many.
COUNTS = [3, 0, 9, 1, 12, 5, 0, 2, 0]


@pytest.fixture(scope="module")
def interactions():
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(len(COUNTS), dtype=np.int32), COUNTS)
    items = random.integers(1, 20, len(users)).astype(np.int32)
    return Interactions(users, items, np.arange(len(users)), ["u"] * len(COUNTS), ["i"] * 19)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("sequence_length", "target_length"), [(5, 1), (2, 3)])
@pytest.mark.parametrize("shards", [1, 2, 4, 9])
@pytest.mark.parametrize("short", [False, True])
def test_shards_together_are_the_whole(interactions, tmp_path, split, sequence_length, target_length, shards, short):
    save_dataset(interactions, tmp_path / "d", {}, shards=shards)
    cuts = [
        cut_shard(load_shard(tmp_path / "d", number), split, sequence_length, target_length, short)
        for number in range(shards)
    ]
    parts = [cut.of_the_dataset() for cut in cuts]
    train = split_interactions(interactions, split).train
    whole = make_windows(interactions, train, sequence_length, target_length, short)
    for name in ("users", "positions", "sequences", "targets"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
        assert joined.dtype == np.int32
    assert windows_fingerprint(iter(parts), sequence_length, target_length) == whole.fingerprint()


@pytest.mark.parametrize(("shards", "short"), [(1, False), (2, True), (4, False), (9, True)])
def test_a_shard_of_data_in_memory_is_what_is_cut_of_its_file(interactions, tmp_path, shards, short):
    save_dataset(interactions, tmp_path / "d", {}, shards=shards)
    data = Dataset(interactions).split("test")
    for number in range(shards):
        shard = load_shard(tmp_path / "d", number)
        expected = cut_shard(shard, "test", 2, 3, short)
        found = data.shard(shard.first_user, shard.num_users, 2, 3, short)
        assert found.first_user == expected.first_user
        assert found.windows.fingerprint() == expected.windows.fingerprint()
        users = np.arange(shard.num_users)
        np.testing.assert_array_equal(found.seen.histories(users), expected.seen.histories(users))


def test_what_users_have_seen_is_found_by_their_number_in_the_shard(interactions, tmp_path):
    save_dataset(interactions, tmp_path / "d", {}, shards=3)
    train = split_interactions(interactions, "test").train
    seen = UserItems(interactions.users[train], interactions.items[train], interactions.num_users)
    for number in range(3):
        cut = cut_shard(load_shard(tmp_path / "d", number), "test", 5, 1)
        assert cut.first_user == 3 * number
        users = np.arange(3)
        expected = seen.histories(users + cut.first_user)
        np.testing.assert_array_equal(cut.seen.histories(users), expected)


def test_the_fingerprint_of_windows_tells_all_apart(interactions):
    windows = make_windows(interactions, np.ones(len(interactions), bool), 2, 1)
    fields, right = dict(vars(windows)), windows_fingerprint([windows], 2, 1)
    assert right == windows.fingerprint()
    for name in ("users", "positions", "sequences", "targets"):
        changed = getattr(windows, name).copy()
        changed.flat[-1] += 1
        assert windows_fingerprint([type(windows)(**{**fields, name: changed})], 2, 1) != right
