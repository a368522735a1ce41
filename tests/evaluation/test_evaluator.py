"""An evaluator prepares the data once and evaluates any ranker on it."""

import numpy as np
import pytest

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Dataset
from rd_tf.evaluation.evaluator import Evaluator, evaluate_on
from rd_tf.evaluation.metrics import parse_cutoffs
from rd_tf.models.caser import Caser
from rd_tf.storage import InputError


@pytest.fixture
def interactions():
    generator = np.random.default_rng(0)
    histories = [generator.permutation(25)[:count] + 1 for count in (3, 10, 12, 20, 25)]
    users = np.repeat(np.arange(5, dtype=np.int32), [len(history) for history in histories])
    items = np.concatenate(histories).astype(np.int32)
    ids = [[str(number) for number in range(count)] for count in (5, 25)]
    return Interactions(users, items, np.arange(len(items), dtype=np.int64), *ids)


def test_metrics_are_means_of_the_per_user_columns(interactions):
    model = Caser(5, 25, sequence_length=3, dim=4)
    evaluation = evaluate_on(model, Dataset(interactions).split("test"), [3, 10])
    assert evaluation.per_user["user"].tolist() == [1, 2, 3, 4]  # user 0 has too few items for a held-out one
    assert evaluation.counts["users_without_targets"] == 1
    assert list(evaluation.metrics)[:4] == ["precision@3", "precision@10", "recall@3", "recall@10"]
    assert set(evaluation.metrics) == {
        *(f"{name}@{n}" for name in ("precision", "recall", "ndcg", "ndcg_tang", "hit_rate", "mrr") for n in (3, 10)),
        "map",
    }
    for name, value in evaluation.metrics.items():
        assert evaluation.per_user["ap" if name == "map" else name].mean() == pytest.approx(value)


def test_the_same_graph_sees_new_weights_and_another_model_gets_another(interactions):
    evaluator = Evaluator(Dataset(interactions).split("validation"), 3, [3], block_size=2)
    model, other = (Caser(5, 25, sequence_length=3, dim=4, seed=seed) for seed in (0, 1))
    before = evaluator.evaluate(model)
    graph = evaluator._scores._score
    model.set_weights(other.get_weights())
    after = evaluator.evaluate(model)
    assert evaluator._scores._score is graph
    assert graph.cache_info().misses == 1
    assert after.metrics == evaluator.evaluate(other).metrics != before.metrics


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_not_finite_is_refused(interactions, bad):
    evaluator = Evaluator(Dataset(interactions).split("test"), 3, [3])
    scores = np.zeros((5, 26), np.float32)
    scores[:, 0] = bad
    evaluator.evaluate_scores(lambda users, _: scores[users])
    scores[evaluator.held_out.users[0], evaluator.held_out.seen[0]] = bad
    with pytest.raises(InputError, match="scores are not finite; train it again with a smaller --learning_rate"):
        evaluator.evaluate_scores(lambda users, _: scores[users])


def test_a_model_of_other_sizes_is_refused(interactions):
    evaluator = Evaluator(Dataset(interactions).split("test"), 3, [3])
    with pytest.raises(ValueError, match="5 users, 25 items and sequences of 3; received 5, 26 and 4"):
        evaluator.evaluate(Caser(5, 26, sequence_length=4, dim=4))


def test_cutoffs_are_sorted_and_distinct():
    assert parse_cutoffs(["10", "3", "10"], 10) == [3, 10]
    assert parse_cutoffs([5], 10) == [5]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "--cutoffs is empty; give list lengths such as 3,5,10"),
        (["3", "x"], "--cutoffs=3,x: 'x' is not a whole number"),
        (["3.0"], "--cutoffs=3.0: '3.0' is not a whole number"),
        (["0"], "--cutoffs=0: 0 is not between 1 and the 10 items of the catalogue"),
        (["3", "11"], "--cutoffs=3,11: 11 is not between 1 and the 10 items of the catalogue"),
    ],
)
def test_bad_cutoffs_are_refused_in_a_sentence(values, message):
    with pytest.raises(InputError) as error:
        parse_cutoffs(values, 10)
    assert str(error.value) == message
