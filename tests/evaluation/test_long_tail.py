"""The long tail of a catalogue, and how much of it is found."""

import numpy as np
import pytest

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Dataset, SplitData
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.evaluation.held_out import HeldOut, make_held_out, recall_of_tail, tail_items


@pytest.fixture
def make_data():
    """Training rows with given numbers of rows an item, on the split that holds nothing out."""

    def make(counts):
        items = np.repeat(np.arange(1, len(counts) + 1, dtype=np.int32), counts)
        users = np.arange(len(items), dtype=np.int32)
        ids = [[str(number) for number in range(count)] for count in (len(items), len(counts))]
        return Dataset(Interactions(users, items, np.zeros(len(items), np.int64), *ids)).split("all")

    return make


@pytest.fixture
def held_out():
    """Users 0, 1, 2 with the targets 1 4, 2 and 3 5 6."""
    targets, offsets = np.array([1, 4, 2, 3, 5, 6], np.int32), np.array([0, 2, 3, 6])
    none, zeros = np.zeros(0, np.int32), np.zeros(4, np.int64)
    users = np.arange(3, dtype=np.int32)
    return HeldOut(users, users[:, None], targets, offsets, none, zeros, np.ones(7, bool), {})


def mask(*items, of=6):
    return np.isin(np.arange(of + 1), items)


def test_the_tail_is_the_items_with_fewest_training_rows(make_data):
    np.testing.assert_array_equal(tail_items(make_data([9, 1, 5, 3, 2])), mask(2, 3, 4, 5, of=5))
    np.testing.assert_array_equal(tail_items(make_data([9, 1, 5, 3, 2]), 0.5), mask(2, 5, of=5))
    np.testing.assert_array_equal(tail_items(make_data([9, 1, 5, 3, 2]), 1.0), mask(1, 2, 3, 4, 5, of=5))


def test_of_equally_popular_items_the_lower_numbers_are_tail(make_data):
    np.testing.assert_array_equal(tail_items(make_data([2, 2, 2, 2]), 0.5), mask(1, 2, of=4))


def test_items_without_a_training_row_are_not_counted(make_data):
    np.testing.assert_array_equal(tail_items(make_data([4, 0, 1, 2]), 0.7), mask(3, 4, of=4))


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_out_of_range_is_refused(make_data, share):
    with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
        tail_items(make_data([1]), share)


def test_recall_is_the_mean_over_users_with_a_target_in_the_tail(held_out):
    ranks = np.array([1.0, 11.0, 1.0, 10.0, 2.0, np.inf])
    # User 0: 4 is missed. User 1 has no target in the tail. User 2: 3 and 5 are found, 6 cannot be ranked.
    assert recall_of_tail(ranks, held_out, mask(3, 4, 5, 6)) == pytest.approx((0 + 2 / 3) / 2)
    assert recall_of_tail(ranks, held_out, mask(3, 4, 5, 6), n=2) == pytest.approx((0 + 1 / 3) / 2)
    assert recall_of_tail(ranks, held_out, mask(1, 4)) == pytest.approx(1 / 2)
    assert recall_of_tail(ranks, held_out, mask()) == 0.0


def test_with_all_items_in_the_tail_it_is_recall(make_data):
    generator = np.random.default_rng(0)
    items = np.concatenate([generator.permutation(30)[:20] + 1 for _ in range(8)]).astype(np.int32)
    users = np.repeat(np.arange(8, dtype=np.int32), 20)
    ids = [[str(number) for number in range(count)] for count in (8, 30)]
    data: SplitData = Dataset(Interactions(users, items, np.arange(160, dtype=np.int64), *ids)).split("test")
    evaluator = Evaluator(data, 3, [10])
    scores = generator.normal(size=(8, 31)).astype(np.float32)
    evaluation = evaluator.evaluate_scores(lambda some, _: scores[some])
    held_out = make_held_out(data, 3)
    every = np.ones(31, bool)
    assert recall_of_tail(evaluation.ranks, held_out, every) == pytest.approx(evaluation.metrics["recall@10"])
    # Restricted to some items it is the same lists that are looked at.
    is_tail = tail_items(data, 0.5)
    wanted, found = np.zeros(8), np.zeros(8)
    for user in range(8):
        seen = set(items[users == user][:16].tolist())
        candidates = [item for item in range(1, 31) if data.is_candidate[item] and item not in seen]
        top = sorted(candidates, key=lambda item: -scores[user, item])[:10]
        targets = [item for item in items[users == user][16:].tolist() if is_tail[item]]
        wanted[user], found[user] = len(targets), len(set(targets) & set(top))
    expected = (found[wanted > 0] / wanted[wanted > 0]).mean()
    assert recall_of_tail(evaluation.ranks, held_out, is_tail) == pytest.approx(expected)
