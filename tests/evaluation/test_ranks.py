"""Ranks over the whole catalogue, against an oracle that looks at one item at a time."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Split, SplitData
from rd_tf.evaluation import ranks as ranks_module
from rd_tf.evaluation.held_out import make_held_out
from rd_tf.evaluation.ranks import FrozenScores, rank_targets
from rd_tf.models.caser import Caser
from rd_tf.storage import InputError


def dataset(rows, num_users, num_items):
    """Interactions and split from (user, item, held out) rows in the users' order."""
    users, items, held_out = (np.array(column) for column in zip(*rows, strict=True))
    interactions = Interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        np.arange(len(rows), dtype=np.int64),
        [f"u{user}" for user in range(num_users)],
        [f"i{item}" for item in range(1, num_items + 1)],
    )
    return SplitData(interactions, Split("test", ~held_out.astype(bool), held_out.astype(bool)))


def random_rows(generator, num_users, num_items, most_targets=12):
    """Histories with repeats, repeated and unknown held-out items, and users without one or the other."""
    rows = []
    for user in range(num_users):
        train = generator.integers(1, int(num_items * 0.8), generator.integers(0, 15))
        test = generator.integers(1, num_items + 1, generator.integers(0, most_targets))
        rows += [(user, item, False) for item in train] + [(user, item, True) for item in test]
    return rows


def slow_ranks(rows, scores):
    """{(user, item): rank} by the definition; scores `[users, num_items + 1]`."""
    known = {item for _, item, held_out in rows if not held_out}
    seen, targets = {}, {}
    for user, item, held_out in rows:
        (targets if held_out else seen).setdefault(user, set()).add(item)
    result = {}
    for user, items in targets.items():
        own = items - seen.get(user, set())
        listed = sorted(own & known, key=lambda item: -scores[user, item])
        rivals = known - seen.get(user, set()) - own
        for place, item in enumerate(listed, 1):
            result[user, item] = place + sum(scores[user, rival] >= scores[user, item] for rival in rivals)
        result |= {(user, item): np.inf for item in own - known}
    return result


def by_user_and_item(held_out, ranks):
    users = np.repeat(held_out.users, np.diff(held_out.target_offsets))
    return dict(zip(zip(users.tolist(), held_out.targets.tolist(), strict=True), ranks.tolist(), strict=True))


def sorted_by_user(ranks):
    """Ranks of equal own targets are interchangeable, so a user's ranks are compared as a list."""
    result = {}
    for (user, _), rank in ranks.items():
        result.setdefault(user, []).append(rank)
    return {user: sorted(values) for user, values in result.items()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("distinct_scores", [3, 40, None])
def test_ranks_equal_the_oracle(seed, distinct_scores):
    generator = np.random.default_rng(seed)
    rows = random_rows(generator, num_users=23, num_items=60)
    scores = generator.normal(size=(23, 61)).astype(np.float32)
    if distinct_scores:
        scores = generator.integers(0, distinct_scores, scores.shape).astype(np.float32)
    held_out = make_held_out(dataset(rows, 23, 60), sequence_length=3)
    ranks = by_user_and_item(held_out, rank_targets(lambda users, sequences: scores[users], held_out, 8))
    expected = slow_ranks(rows, scores)
    assert sorted_by_user(ranks) == sorted_by_user(expected)
    if distinct_scores is None:
        assert ranks == expected


def test_neither_block_size_nor_memory_limit_changes_ranks(monkeypatch):
    generator = np.random.default_rng(0)
    rows = random_rows(generator, num_users=50, num_items=40, most_targets=25)
    scores = generator.integers(0, 9, (50, 41)).astype(np.float32)
    held_out = make_held_out(dataset(rows, 50, 40), sequence_length=3)
    results = [rank_targets(lambda users, _: scores[users], held_out, size) for size in (1, 7, 50, 1000)]
    results.append(rank_targets(lambda users, _: scores[users], held_out, 7, threads=3))
    monkeypatch.setattr("rd_tf.evaluation.ranks._BLOCK_CELLS", 130)
    widest = []
    results.append(rank_targets(lambda users, _: (widest.append(len(users)), scores[users])[1], held_out, 1000))
    assert max(widest) == 3
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("targets_at_once", [1, 4])
def test_ranks_do_not_depend_on_how_many_targets_are_compared_at_once(monkeypatch, targets_at_once):
    generator = np.random.default_rng(1)
    rows = random_rows(generator, num_users=9, num_items=40, most_targets=25)
    scores = generator.integers(0, 9, (9, 41)).astype(np.float32)
    held_out = make_held_out(dataset(rows, 9, 40), sequence_length=3)
    expected = rank_targets(lambda users, _: scores[users], held_out, 4)
    monkeypatch.setattr(ranks_module, "_COMPARED_CELLS", targets_at_once * 41)
    np.testing.assert_array_equal(rank_targets(lambda users, _: scores[users], held_out, 4), expected)


def test_scores_are_read_only_to_the_ranking():
    rows = [(0, 1, False), (0, 2, True), (1, 2, False), (1, 3, False), (1, 1, True)]
    held_out = make_held_out(dataset(rows, 2, 3), sequence_length=2)
    scores = np.arange(8, dtype=np.float32).reshape(2, 4)
    rank_targets(lambda users, _: scores, held_out, 2)
    np.testing.assert_array_equal(scores, np.arange(8).reshape(2, 4))


def test_ties_count_against_the_model():
    rows = [(0, 1, False), (0, 2, True), (0, 3, True), (1, 2, False), (1, 3, False), (1, 4, False), (1, 5, False)]
    held_out = make_held_out(dataset(rows, 2, 5), sequence_length=2)
    ranks = rank_targets(lambda users, _: np.zeros((len(users), 6)), held_out, 4)
    assert sorted(ranks) == [3.0, 4.0]  # behind the rivals 4 and 5; item 1 is seen


def test_padding_and_unknown_items_are_no_rivals():
    rows = [(0, 1, False), (0, 2, True), (1, 2, False), (1, 3, False)]
    held_out = make_held_out(dataset(rows, 2, 5), sequence_length=2)
    scores = np.array([[9, 9, 1, 0, 9, 9]], np.float32)
    assert rank_targets(lambda users, _: scores, held_out, 4) == [1.0]


def test_an_unknown_target_has_infinite_rank_even_when_it_is_the_only_one():
    rows = [(0, 1, False), (0, 3, True), (1, 2, False), (1, 1, True), (1, 3, True)]
    held_out = make_held_out(dataset(rows, 2, 3), sequence_length=2)
    scores = np.tile(np.arange(4.0), (2, 1))  # the unknown item scores highest, and takes no place
    for size in (1, 2):
        ranks = by_user_and_item(held_out, rank_targets(lambda users, _: scores[users], held_out, size))
        assert ranks == {(0, 3): np.inf, (1, 1): 1.0, (1, 3): np.inf}
    assert held_out.counts["unknown_targets"] == 2


def test_repeated_and_duplicate_held_out_items_are_counted_and_left_out():
    rows = [(0, 1, False), (0, 2, False), (0, 2, True), (0, 3, True), (0, 3, True), (1, 3, False), (2, 1, False)]
    rows += [(2, 1, True)]
    held_out = make_held_out(dataset(rows, 3, 3), sequence_length=4)
    assert held_out.counts == {
        "users": 1,
        "users_without_targets": 2,
        "targets": 1,
        "unknown_targets": 0,
        "repeated_targets": 2,
    }
    np.testing.assert_array_equal(held_out.targets, [3])
    np.testing.assert_array_equal(held_out.sequences, [[0, 0, 1, 2]])


def test_a_user_without_a_history_is_ranked_from_padding():
    held_out = make_held_out(dataset([(0, 2, True), (1, 1, False), (1, 2, False)], 2, 2), sequence_length=2)
    assert held_out.sequences.tolist() == [[0, 0]]
    assert rank_targets(lambda users, _: np.array([[0, 2, 1]]), held_out, 4) == [2.0]


def test_nothing_held_out_is_refused_in_a_sentence():
    with pytest.raises(InputError, match="no user has an item to rank in the split 'test'"):
        make_held_out(dataset([(0, 1, False)], 1, 1), sequence_length=2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_targets_whose_scores_are_not_finite_are_refused(bad):
    held_out = make_held_out(dataset([(0, 1, False), (0, 2, True), (1, 2, False)], 2, 2), sequence_length=2)
    with pytest.raises(InputError, match="scores are not finite; train it again with a smaller --learning_rate"):
        rank_targets(lambda users, _: np.array([[0, 1, bad]], np.float32), held_out, 4)


@pytest.mark.parametrize("num_items", [254, 2039, 2040, 5000, 2**18 + 3])
def test_all_items_of_a_large_catalogue_may_be_ahead(num_items):
    rows = [(0, 1, True), (0, num_items, True), *[(1, item, False) for item in range(1, num_items + 1)]]
    held_out = make_held_out(dataset(rows, 2, num_items), sequence_length=2)
    scores = np.ones((1, num_items + 1), np.float32)
    assert rank_targets(lambda users, _: scores, held_out, 4).tolist() == [num_items - 1, num_items]


def test_misshapen_scores_and_block_sizes_are_refused():
    held_out = make_held_out(dataset([(0, 1, False), (0, 2, True), (1, 2, False)], 2, 2), sequence_length=2)
    with pytest.raises(ValueError, match=r"scores must have the shape \(1, 3\); received \(1, 2\)"):
        rank_targets(lambda users, _: np.zeros((1, 2)), held_out, 4)
    with pytest.raises(ValueError, match="block_size must be at least 1; received 0"):
        rank_targets(lambda users, _: np.zeros((1, 3)), held_out, 0)


def test_a_model_is_ranked_by_its_own_recommendations():
    generator = np.random.default_rng(3)
    rows = random_rows(generator, num_users=12, num_items=30)
    rows = [row for row in rows if row[0] < 12] + [(12, item, False) for item in range(1, 31)]
    held_out = make_held_out(dataset(rows, 13, 30), sequence_length=3)
    model = Caser(13, 30, sequence_length=3, dim=4, seed=1)
    ranks = by_user_and_item(held_out, rank_targets(FrozenScores(model).freeze(), held_out, 5))
    for row, user in enumerate(held_out.users):
        seen = held_out.seen[held_out.seen_offsets[row] : held_out.seen_offsets[row + 1]]
        inputs = (tf.constant([user]), tf.constant(held_out.sequences[[row]]), tf.constant([seen]))
        listed = model.recommend(*inputs, k=30)[0].numpy()[0].tolist()
        for item in held_out.targets[held_out.target_offsets[row] : held_out.target_offsets[row + 1]].tolist():
            assert listed.index(item) + 1 == ranks[user, item]
