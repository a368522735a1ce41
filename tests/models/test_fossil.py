"""Fossil against its formula, item by item."""

import keras
import numpy as np
import pytest

from rd_tf.models.fossil import Fossil
from rd_tf.models.ranker import Histories

USERS = np.array([0, 4, 1, 4], "int32")
SEQUENCES = np.array([[1, 2, 3], [0, 0, 9], [4, 4, 5], [0, 0, 0]], "int32")
HISTORIES = [[7, 1, 2, 3], [9], [4, 4, 5, 11, 12, 4, 4, 5], []]


def random_fossil(**changed):
    model = Fossil(**{"num_users": 5, "num_items": 12, "sequence_length": 3, "dim": 4, **changed})
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def flat(histories):
    rows = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    return Histories(np.array([item for items in histories for item in items], "int32"), rows.astype("int32"))


def slow_scores(model, exponent, histories):
    visited, items = np.asarray(model.visited_table), np.asarray(model.item_table)
    steps, own_steps = np.asarray(model.markov_weights), np.asarray(model.user_markov_weights)
    scores = []
    for user, sequence, history in zip(USERS, SEQUENCES, histories, strict=True):
        query = np.zeros(4)
        for item in history:
            query += visited[item] / len(history) ** exponent
        for place, item in enumerate(sequence):
            if item:
                query += (steps[place] + own_steps[user, place]) * visited[item]
        scores.append(items @ query + np.asarray(model.item_bias))
    return np.array(scores)[:, 1:]


@pytest.mark.parametrize("exponent", [0.0, 0.2, 1.0])
def test_scores_follow_the_formula(exponent):
    model = random_fossil(history_exponent=exponent)
    query = model.encode(USERS, SEQUENCES, history=flat(HISTORIES))
    assert query.shape == (4, 4)
    np.testing.assert_allclose(
        np.asarray(model.score_all(query))[:, 1:], slow_scores(model, exponent, HISTORIES), rtol=1e-4, atol=1e-5
    )


def test_without_a_history_the_sequence_is_the_history():
    model = random_fossil()
    alone = np.asarray(model.score_all(model.encode(USERS, SEQUENCES)))[:, 1:]
    own = [[item for item in row if item] for row in SEQUENCES.tolist()]
    np.testing.assert_allclose(alone, slow_scores(model, 0.2, own), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("histories", [[[], [], [], []], [[1], [], [], []], [[], [], [], [3, 3]]])
def test_queries_without_a_history_have_no_long_term_part(histories):
    model = random_fossil()
    scores = np.asarray(model.score_all(model.encode(USERS, SEQUENCES, history=flat(histories))))[:, 1:]
    np.testing.assert_allclose(scores, slow_scores(model, 0.2, histories), rtol=1e-4, atol=1e-5)


def test_dropout_is_on_in_training_only():
    model = random_fossil(dropout=0.5)
    history = flat(HISTORIES)
    still = np.asarray(model.encode(USERS, SEQUENCES, history=history))
    np.testing.assert_array_equal(still, model.encode(USERS, SEQUENCES, history=history))
    moving = np.asarray(model.encode(USERS, SEQUENCES, training=True, history=history))
    dropped = moving == 0
    assert 0 < dropped[:3].sum() < 12
    np.testing.assert_allclose(moving[~dropped], 2 * still[~dropped], rtol=1e-5)


@pytest.mark.parametrize(("dim", "parameters"), [(50, 1_480_760), (20, 640_160)])
def test_parameters_are_the_papers_on_gowalla(dim, parameters):
    assert Fossil(13_149, 14_009, 5, dim).count_params() == parameters


def test_the_tables_are_row_sparse_and_the_shared_weights_are_not():
    sparse = [weight.name for weight in Fossil(5, 12, 3, 4).weights if getattr(weight, "row_sparse", False)]
    assert sparse == ["visited_table", "user_markov_weights", "item_table", "item_bias"]


def test_same_seed_same_weights_and_config_makes_it_again():
    model = Fossil(5, 12, 3, 4, history="all", history_exponent=0.5, dropout=0.3, seed=3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert (again.looks_back, again.history_exponent, again.dropout_rate) == ("all", 0.5, 0.3)
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = Fossil(5, 12, 3, 4, seed=4)
    assert np.abs(np.asarray(other.visited_table) - np.asarray(model.visited_table)).max() > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 0}, "dim must be at least 1; received 0"),
        ({"history": "none"}, "history must be before or all; received 'none'"),
        ({"history_exponent": 1.5}, r"history_exponent must be in \[0, 1\]; received 1.5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); received 1.0"),
        ({"sequence_length": 0}, "sequence_length must be at least 1; received 0"),
    ],
)
def test_sizes_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        random_fossil(**changed)
