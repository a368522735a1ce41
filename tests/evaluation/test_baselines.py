"""Rankers that learn nothing, on histories that can be counted by hand."""

import itertools

import numpy as np
import pytest

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Split
from rd_tf.evaluation.evaluator import BASELINES, evaluate_baselines, popularity_scores, successor_scores

# Every user's training items, oldest first, and the held-out ones. Items 1 to 6; 6 never occurs in training.
TRAIN = [[1, 2, 3], [1, 2, 4], [2, 1], [3, 2, 4], [5]]
HELD_OUT = [[4], [3, 5], [3, 6], [1], [2]]


@pytest.fixture
def world():
    histories = [(train, held) for train, held in zip(TRAIN, HELD_OUT, strict=True)]
    items = np.array([item for train, held in histories for item in train + held], np.int32)
    users = np.repeat(np.arange(5, dtype=np.int32), [len(train + held) for train, held in histories])
    is_train = np.concatenate([[True] * len(train) + [False] * len(held) for train, held in histories])
    ids = [[str(number) for number in range(count)] for count in (5, 6)]
    interactions = Interactions(users, items, np.arange(len(items), dtype=np.int64), *ids)
    return interactions, Split("test", is_train, ~is_train)


def order(scores):
    """Items from the highest score, those of equal scores in a set."""
    return [set((1 + np.flatnonzero(scores[1:] == value)).tolist()) for value in np.unique(scores[1:])[::-1]]


def test_popular_items_come_first_for_everybody(world):
    scores = np.asarray(popularity_scores(*world)(np.arange(5, dtype=np.int32), np.zeros((5, 1), np.int32)))
    assert scores.shape == (5, 7)
    assert scores.dtype == np.float32
    # 2 occurs four times, 1 three times, 3 and 4 twice, 5 once, 6 never.
    assert order(scores[0]) == [{2}, {1}, {3, 4}, {5}, {6}]
    assert (scores == scores[0]).all()


@pytest.mark.parametrize(
    ("last", "ranked"),
    [
        # 1 -> 2 twice.
        (1, [{2}, {1}, {3, 4}, {5}, {6}]),
        # 2 -> 4 twice, 2 -> 3 and 2 -> 1 once, of which 1 is the more popular; then the others by popularity.
        (2, [{4}, {1}, {3}, {2}, {5}, {6}]),
        # 3 -> 2 once.
        (3, [{2}, {1}, {3, 4}, {5}, {6}]),
        # Nothing follows 4 within a user: the 2 of the next user is no successor.
        (4, [{2}, {1}, {3, 4}, {5}, {6}]),
        (0, [{2}, {1}, {3, 4}, {5}, {6}]),
    ],
)
def test_successors_of_the_last_item_come_first(world, last, ranked):
    sequences = np.array([[5, last], [1, 2]], np.int32)
    scores = successor_scores(*world)(np.arange(2, dtype=np.int32), sequences)
    assert scores.dtype == np.float32
    assert order(scores[0]) == ranked
    assert order(scores[1]) == [{4}, {1}, {3}, {2}, {5}, {6}]


def test_their_metrics_are_those_of_the_ranks_among_unseen_items(world):
    found = evaluate_baselines(*world, [1, 2], block_size=2)
    assert list(found) == list(BASELINES)
    # Users 0 to 4; a tie counts against the ranker, seen items are out of the list, and 6 is no candidate, so a miss.
    # 0: seen 1 2 3, list 4 5, target 4 at 1.
    # 1: seen 1 2 4, list 3 5, targets 3 and 5 at 1 and 2.
    # 2: seen 1 2, list 3=4 5, target 3 at 2 and 6 nowhere.
    # 3: seen 2 3 4, list 1 5, target 1 at 1.
    # 4: seen 5, list 2 1 3=4, target 2 at 1.
    popularity = found["popularity"].per_user
    assert popularity["ap"].tolist() == pytest.approx([1, 1, (1 / 2) / 2, 1, 1])
    assert popularity["precision@1"].tolist() == [1, 1, 0, 1, 1]
    # User 2's last item is 1, whose only successor, 2, is seen. User 1's last item is 4, user 4's is 5: no successors.
    successors = found["successors"]
    assert successors.per_user["ap"].tolist() == pytest.approx([1, 1, 1 / 4, 1, 1])
    assert successors.metrics["map"] == pytest.approx(4.25 / 5)
    assert successors.counts == found["popularity"].counts
    assert successors.counts["unknown_targets"] == 1


def test_a_successor_counts_for_those_who_have_not_seen_it(world):
    interactions, split = world
    # User 4 now ends with 2, whose successor 4 overtakes the more popular 1.
    items = interactions.items.copy()
    items[np.flatnonzero((interactions.users == 4) & split.train)] = 2
    items[np.flatnonzero((interactions.users == 4) & split.held_out)] = 4
    changed = Interactions(
        interactions.users, items, interactions.timestamps, interactions.user_ids, interactions.item_ids
    )
    found = evaluate_baselines(changed, split, [1])
    # Popularity has 1 before 4, which ties with 3.
    assert found["popularity"].per_user["ap"].tolist()[4] == pytest.approx(1 / 3)
    assert found["successors"].per_user["ap"].tolist()[4] == 1


def test_random_histories_are_ranked_as_a_plain_count_ranks_them():
    generator = np.random.default_rng(0)
    users = np.sort(generator.integers(0, 30, 600)).astype(np.int32)
    items = generator.integers(1, 41, 600).astype(np.int32)
    interactions = Interactions(users, items, np.arange(600), [str(u) for u in range(30)], [str(i) for i in range(40)])
    train = generator.random(600) < 0.8
    sequences = generator.integers(0, 41, (9, 3)).astype(np.int32)
    scores = successor_scores(interactions, Split("test", train, ~train))(np.arange(9, dtype=np.int32), sequences)
    history = list(zip(users[train], items[train], strict=True))
    for row, last in zip(scores, sequences[:, -1], strict=True):
        follows = [b for (u, a), (v, b) in itertools.pairwise(history) if u == v and a == last]
        keys = [(follows.count(item), sum(i == item for _, i in history)) for item in range(1, 41)]
        assert [sorted(set(keys)).index(key) for key in keys] == np.unique(row[1:], return_inverse=True)[1].tolist()
