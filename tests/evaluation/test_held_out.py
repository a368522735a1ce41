"""What is laid out for evaluation, against sets of each user."""

import functools

import numpy as np
import pytest

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Split, SplitData, user_blocks
from rd_tf.evaluation import held_out as held_out_module
from rd_tf.evaluation.held_out import make_held_out

NUM_USERS, NUM_ITEMS = 30, 25


def dataset(generator):
    """Users with and without training rows and held-out ones, with repeats; the last users have no rows."""
    counts = generator.integers(0, 15, NUM_USERS)
    counts[-3:] = 0
    users = np.repeat(np.arange(NUM_USERS, dtype=np.int32), counts)
    items = generator.integers(1, NUM_ITEMS + 1, len(users)).astype(np.int32)
    ids = [str(user) for user in range(NUM_USERS)], [str(item) for item in range(NUM_ITEMS)]
    part = generator.integers(0, 4, len(users))
    return Interactions(users, items, np.arange(len(users)), *ids), Split("validation", part < 2, part == 2)


@pytest.mark.parametrize("rows", [1, 20, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_targets_and_seen_items_are_the_users_sets(monkeypatch, seed, rows):
    monkeypatch.setattr(held_out_module, "user_blocks", functools.partial(user_blocks, rows=rows))
    interactions, split = dataset(np.random.default_rng(seed))
    held_out = make_held_out(SplitData(interactions, split), sequence_length=3)

    def items_of(user, mask):
        return np.unique(interactions.items[mask & (interactions.users == user)])

    expected, repeated = {}, 0
    for user in range(NUM_USERS):
        seen, targets = items_of(user, split.train), items_of(user, split.held_out)
        repeated += len(np.intersect1d(targets, seen))
        if len(np.setdiff1d(targets, seen)):
            expected[user] = (np.setdiff1d(targets, seen).tolist(), seen.tolist())
    found = {
        int(user): (
            held_out.targets[held_out.target_offsets[row] : held_out.target_offsets[row + 1]].tolist(),
            held_out.seen[held_out.seen_offsets[row] : held_out.seen_offsets[row + 1]].tolist(),
        )
        for row, user in enumerate(held_out.users)
    }
    assert found == expected
    assert list(found) == sorted(found)
    trained = np.unique(interactions.items[split.train])
    assert np.flatnonzero(held_out.is_candidate).tolist() == trained.tolist()
    assert held_out.counts == {
        "users": len(expected),
        "users_without_targets": NUM_USERS - len(expected),
        "targets": len(held_out.targets),
        "unknown_targets": int((~np.isin(held_out.targets, trained)).sum()),
        "repeated_targets": repeated,
    }
    assert repeated > 0
    arrays = (held_out.users, held_out.targets, held_out.target_offsets, held_out.seen, held_out.seen_offsets)
    assert [array.dtype.name for array in arrays] == ["int32", "int32", "int64", "int32", "int64"]
