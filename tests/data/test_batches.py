"""The join: every window once an epoch, its own teacher's row, the same global batch for any number of replicas."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.data.batches import TrainingBatches, popularity_groups
from rd_tf.data.sampling import RankSampler, SharedSampler, UnseenItemSampler
from rd_tf.data.windows import Windows

ROWS = 23


def make(**changed):
    random = np.random.default_rng(0)
    windows = Windows(
        users=np.sort(random.integers(0, 5, ROWS)).astype("int32"),
        positions=np.arange(ROWS, dtype="int32"),
        sequences=np.arange(1, ROWS + 1, dtype="int32")[:, None].repeat(2, 1),
        targets=np.arange(1, ROWS + 1, dtype="int32")[:, None],
    )
    sampler = UnseenItemSampler(windows.users, windows.targets[:, 0], 5, 40)
    teacher = np.arange(1, ROWS + 1, dtype="int32")[:, None] + np.array([0, 100, 200], "int32")
    rank_sampler = RankSampler(windows.users, windows.targets[:, 0], 5, 40, samples=4)
    batches = TrainingBatches(windows, sampler, 8, 2, seed=7, teacher_items=teacher, rank_sampler=rank_sampler)
    return dataclasses.replace(batches, **changed)


def read(batches, first, last, replicas=1):
    context = tf.distribute.InputContext(num_replicas_in_sync=replicas)
    return [{k: v.numpy() for k, v in b.items()} for b in batches.input_function(first, last)(context)]


def test_an_epoch_holds_every_window_once_and_epochs_differ():
    orders = [np.concatenate([b["sequence"][:, 0] for b in read(make(), e * 3, e * 3 + 3)]) for e in range(2)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1, ROWS + 1))
    assert (orders[0] != orders[1]).any()


def test_neighbours_in_an_epoch_are_not_correlated():
    # Correlations of a true permutation of 60,000 have a standard deviation of 0.004.
    rows, zeros = 60_000, np.zeros(60_000, "int32")
    windows = Windows(
        zeros, np.arange(rows, dtype="int32"), np.arange(rows, dtype="int32")[:, None], zeros[:, None] + 1
    )
    batches = make(windows=windows, sampler=UnseenItemSampler(zeros[:1], zeros[:1] + 1, 1, 40), teacher_items=None)
    order = np.concatenate([b["sequence"][:, 0] for b in read(dataclasses.replace(batches, batch_size=500), 0, 120)])
    assert len(np.unique(order)) == rows
    for lag in (1, 2, 500):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 0.02


def test_every_window_meets_its_own_teachers_row_and_labels():
    for batch in read(make(), 0, 3):
        np.testing.assert_array_equal(batch["teacher_items"], batch["sequence"][:, :1] + np.array([0, 100, 200]))
        np.testing.assert_array_equal(batch["items"][:, 0], batch["sequence"][:, 0])
        np.testing.assert_array_equal(batch["labels"], np.tile([1.0, 0.0, 0.0], (len(batch["labels"]), 1)))
        assert batch["sampled_items"].shape == (1, 4)
        assert batch["is_unseen"].shape == (len(batch["user"]), 4)


def test_lists_come_from_a_memory_map_of_longer_ones(tmp_path):
    np.save(tmp_path / "items.npy", make().teacher_items)
    lists = np.load(tmp_path / "items.npy", mmap_mode="r")[:, :2]
    for mapped, held in zip(read(make(teacher_items=lists), 0, 3), read(make(), 0, 3), strict=True):
        np.testing.assert_array_equal(mapped["teacher_items"], held["teacher_items"][:, :2])


def test_the_arrays_go_when_nobody_reads_batches_any_more():
    batches = make()
    arrays = [weakref.ref(array) for array in (batches.windows.sequences, batches.teacher_items)]
    read(batches, 0, 2)
    del batches
    gc.collect()
    assert [array() for array in arrays] == [None, None]


def test_the_last_batch_of_an_epoch_is_smaller_and_says_so():
    assert [int(b["global_size"]) for b in read(make(), 0, 3)] == [8, 8, 7]


def test_a_padded_target_is_labelled_as_ignored():
    batches = make()
    targets = np.concatenate([np.zeros((ROWS, 1), "int32"), batches.windows.targets], 1)
    batch = read(dataclasses.replace(batches, windows=dataclasses.replace(batches.windows, targets=targets)), 0, 1)[0]
    np.testing.assert_array_equal(batch["labels"], np.tile([-1.0, 1.0, 0, 0, 0, 0], (8, 1)))


def test_beginning_at_a_later_step_gives_the_same_batches():
    for early, late in zip(read(make(), 0, 6)[4:], read(make(), 4, 6), strict=True):
        for name in early:
            np.testing.assert_array_equal(early[name], late[name])


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_share_the_global_batch_of_one_device_and_its_draws(replicas):
    batches = make(batch_size=20, user_dropout=0.4, num_users=5, noise_width=7)
    alone, shared = read(batches, 0, 4), read(batches, 0, 4, replicas=replicas)
    assert len(shared) == 4 * replicas
    for step in range(4):
        parts = shared[replicas * step : replicas * (step + 1)]
        # 20 rows are 3 groups that share rank samples, the last batch of 3 rows is one.
        assert min(len(part["user"]) for part in parts) == (0 if step % 2 else 4 if replicas == 3 else 8)
        assert all(part["global_size"] == alone[step]["global_size"] for part in parts)
        for name in alone[step].keys() - {"global_size"}:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), alone[step][name])


def test_negatives_are_new_in_every_epoch():
    by_window = [
        {
            int(s): tuple(n)
            for b in read(make(), e * 3, e * 3 + 3)
            for s, n in zip(b["sequence"][:, 0], b["items"][:, 1:], strict=True)
        }
        for e in range(2)
    ]
    assert sum(by_window[0][w] != by_window[1][w] for w in by_window[0]) > ROWS / 2


def test_user_dropout_replaces_users_and_nothing_else():
    plain, dropped = read(make(), 0, 30), read(make(user_dropout=0.4, num_users=5), 0, 30)
    users = [np.concatenate([batch["user"] for batch in batches]) for batches in (plain, dropped)]
    replaced = users[1] == 5
    assert 0.3 < replaced.mean() < 0.5
    np.testing.assert_array_equal(users[0][~replaced], users[1][~replaced])
    for one, other in zip(plain, dropped, strict=True):
        for name in one.keys() - {"user"}:
            np.testing.assert_array_equal(one[name], other[name])


def with_shared(distribution, **changed):
    """Negatives that a batch shares, of 12 a draw; every list has a third of its items among them."""
    batches = make(teacher_items=make().teacher_items // 20 + 1, batch_size=20, **changed)
    windows = batches.windows
    sampler = SharedSampler(windows.users, windows.targets[:, 0], 5, 40, 12, distribution)
    return dataclasses.replace(batches, shared_sampler=sampler, list_noise=True)


@pytest.mark.parametrize("distribution", ["uniform", "popularity", "in_batch"])
def test_a_shared_item_is_a_negative_where_it_is_unseen_and_unlisted(distribution):
    batches = with_shared(distribution)
    windows, listed = batches.windows, 0
    for batch in read(batches, 0, 4):
        for row, user in enumerate(batch["user"]):
            seen = windows.targets[windows.users == user]
            is_negative = ~np.isin(batch["shared_items"], seen) & (batch["shared_items"] > 0)
            is_listed = np.isin(batch["shared_items"], batch["teacher_items"][row])
            np.testing.assert_array_equal(batch["is_shared_negative"][row], is_negative)
            np.testing.assert_array_equal(batch["is_shared_unlisted"][row], is_negative & ~is_listed)
            listed += (is_negative & is_listed).sum()
        if distribution == "uniform":
            assert "shared_log_ratio" not in batch
        else:
            ratio = batches.shared_sampler.log_ratio.numpy()
            for own, items in (("items", "items"), ("shared", "shared_items"), ("teacher", "teacher_items")):
                np.testing.assert_array_equal(batch[f"{own}_log_ratio"], ratio[batch[items]])
    assert listed > 0


def test_in_batch_negatives_are_the_targets_of_all_rows_without_the_padding():
    batches = with_shared("in_batch")
    targets = np.concatenate([batches.windows.targets, np.zeros((ROWS, 1), "int32")], 1)
    padded = dataclasses.replace(batches, windows=dataclasses.replace(batches.windows, targets=targets))
    for batch in read(padded, 0, 2):
        np.testing.assert_array_equal(np.sort(batch["shared_items"][::2]), np.sort(batch["sequence"][:, 0]))
        assert not batch["is_shared_negative"][:, batch["shared_items"] == 0].any()


@pytest.mark.parametrize("distribution", ["uniform", "popularity", "in_batch"])
def test_replicas_share_the_negatives_of_one_device(distribution):
    batches = with_shared(distribution)
    alone, shared = read(batches, 0, 4), read(batches, 0, 4, replicas=2)
    for step in range(4):
        parts = shared[2 * step : 2 * step + 2]
        for name in alone[step].keys() - {"global_size"}:
            if name.startswith("shared_"):
                for part in parts:
                    np.testing.assert_array_equal(part[name], alone[step][name])
            else:
                np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), alone[step][name])


def test_items_are_cut_into_groups_of_equal_popularity():
    # Popularities 4, 2, 1, 1 of the items 3, 1, 2, 5; item 4 has none.
    items = np.array([3, 3, 3, 3, 1, 1, 2, 5], "int32")
    np.testing.assert_array_equal(popularity_groups(items, 5, 2), [0, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(popularity_groups(items, 5, 4), [0, 2, 3, 0, 3, 3])
    np.testing.assert_array_equal(popularity_groups(items, 5, 1), np.zeros(6))


def test_batches_name_the_popularity_group_of_every_listed_item():
    groups = popularity_groups(np.arange(1, 300, dtype="int32") % 40 + 1, 300, 3)
    for batch in read(make(item_groups=groups), 0, 3):
        np.testing.assert_array_equal(batch["item_groups"], groups[batch["teacher_items"]])
