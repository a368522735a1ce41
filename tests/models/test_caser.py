"""Caser: the authors' scores and sizes, serialization, edges."""

import keras
import numpy as np
import pytest

from rd_tf.models import caser as caser_module
from rd_tf.models.caser import Caser
from rd_tf.models.registry import weights_fingerprint

TINY = {"num_users": 5, "num_items": 12, "sequence_length": 3, "dim": 4}
USERS, SEQUENCES = np.array([0, 4]), np.array([[1, 2, 3], [0, 0, 12]])


@pytest.mark.parametrize("index", range(3))
def test_scores_agree_with_the_authors(conformance, caser_from_state, index):
    case = conformance("caser_forward")["cases"][index]
    model = caser_from_state(case, case["state"], len(case["sequences"][0]))
    users = np.array(case["users"])[:, 0]
    query = model.encode(users, np.array(case["sequences"]))
    scores = model.score(query, np.array(case["items"]))
    np.testing.assert_allclose(scores, case["scores"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dim", "parameters"), [(100, 5_584_102), (50, 2_794_102)])
def test_parameter_counts_are_the_papers(dim, parameters):
    assert Caser(num_users=13_149, num_items=14_009, sequence_length=5, dim=dim).count_params() == parameters


def test_score_and_score_all_agree_and_the_padding_is_no_item():
    model = Caser(**TINY)
    query = model.encode(USERS, SEQUENCES)
    everything = np.asarray(model.score_all(query))
    some = model.score(query, np.array([[1, 5, 12], [12, 1, 7]]))
    np.testing.assert_allclose(some, np.take_along_axis(everything, np.array([[1, 5, 12], [12, 1, 7]]), 1), atol=1e-6)
    assert (everything[:, 0] == -np.inf).all()


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_shared_items_get_the_scores_that_every_row_of_the_group_would_give_them(rows):
    model = Caser(**TINY)
    query = model.encode(np.array([0, 4, 1, 2, 3]), np.arange(15).reshape(5, 3) % 13)
    shared = np.random.default_rng(0).integers(1, 13, (-(-5 // rows), 4))
    expected = model.score(query, shared.repeat(rows, 0)[:5])
    np.testing.assert_allclose(model.score_shared(query, shared, rows), expected, atol=1e-6)


def test_recommend_lists_the_best_items_without_the_excluded():
    model = Caser(**TINY)
    scores = np.array(model.score_all(model.encode(USERS, SEQUENCES)))
    exclude = np.array([[3, 0, 0], [1, 2, 1]])
    for row in range(2):
        scores[row, exclude[row]] = -np.inf
    items, top = model.recommend(USERS, SEQUENCES, exclude, 4)
    np.testing.assert_array_equal(items, np.argsort(-scores, 1)[:, :4])
    np.testing.assert_allclose(top, -np.sort(-scores, 1)[:, :4], atol=1e-6)


@pytest.mark.parametrize("num_items", [511, 700])
def test_recommend_leaves_the_excluded_out_of_a_large_catalogue(num_items):
    model = Caser(**{**TINY, "num_items": num_items})
    scores = np.array(model.score_all(model.encode(USERS, SEQUENCES)))
    best = np.argsort(-scores, 1, kind="stable")
    last = np.tile(np.arange(num_items - 60, num_items + 1), (2, 1))
    exclude = np.concatenate([best[:, [0, 2, 3, 2]], last, np.zeros((2, 3), int)], axis=1)
    for row in range(2):
        scores[row, exclude[row]] = -np.inf
    items, top = model.recommend(USERS, SEQUENCES, exclude, 3)
    np.testing.assert_array_equal(items, np.argsort(-scores, 1, kind="stable")[:, :3])
    np.testing.assert_allclose(top, -np.sort(-scores, 1)[:, :3], atol=1e-6)


def test_recommend_fills_a_list_that_runs_out_of_items_with_padding():
    model = Caser(**TINY)
    items, scores = model.recommend(USERS[:1], SEQUENCES[:1], np.arange(1, 11)[None], 4)
    assert set(np.asarray(items)[0, :2].tolist()) == {11, 12}
    np.testing.assert_array_equal(np.asarray(items)[0, 2:], 0)
    assert (np.asarray(scores)[0, 2:] == -np.inf).all()


@pytest.mark.parametrize("filters", [(2, 0), (0, 3), (1, 2)])
@pytest.mark.parametrize("activation", ["identity", "relu", "leaky_relu", "prelu", "tanh", "sigmoid"])
def test_every_option_survives_a_configuration_round_trip(filters, activation):
    model = Caser(
        **TINY,
        vertical_filters=filters[0],
        horizontal_filters=filters[1],
        conv_activation=activation,
        dense_activation=activation,
    )
    again = Caser.from_config(model.get_config())
    again.set_weights(model.get_weights())
    inputs = {"user": USERS, "sequence": SEQUENCES}
    np.testing.assert_array_equal(model(inputs), again(inputs))


def test_a_saved_model_comes_back_whole(tmp_path):
    model = Caser(**TINY, seed=3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert weights_fingerprint(again) == weights_fingerprint(model)
    assert again.get_config()["sequence_length"] == 3


def test_the_seed_decides_the_initial_weights():
    assert weights_fingerprint(Caser(**TINY, seed=1)) == weights_fingerprint(Caser(**TINY, seed=1))
    assert weights_fingerprint(Caser(**TINY, seed=1)) != weights_fingerprint(Caser(**TINY, seed=2))


def test_tables_start_with_the_authors_spread():
    model = Caser(num_users=2000, num_items=2000, dim=20)
    assert np.std(model.user_table) == pytest.approx(1 / 20, rel=0.03)
    assert np.std(model.item_table) == pytest.approx(1 / 40, rel=0.03)
    assert not np.any(model.item_bias)


@pytest.mark.parametrize("longest_in_bands", [0, 8])
def test_horizontal_filters_equal_a_slow_convolution(longest_in_bands, monkeypatch):
    monkeypatch.setattr(caser_module, "_LONGEST_IN_BANDS", longest_in_bands)
    model = Caser(**TINY, vertical_filters=0, horizontal_filters=2, dense_activation="identity", conv_activation="relu")
    image = np.asarray(model.sequence_table)[SEQUENCES]
    features = []
    for height in range(1, 4):
        kernel, bias = np.asarray(model.horizontal_kernels[height - 1]), np.asarray(model.horizontal_biases[height - 1])
        places = [image[:, at : at + height].reshape(2, -1) @ kernel + bias for at in range(3 - height + 1)]
        features.append(np.maximum(places, 0).max(0))
    expected = np.concatenate(features, 1) @ np.asarray(model.dense_kernel) + np.asarray(model.dense_bias)
    np.testing.assert_allclose(np.asarray(model.encode(USERS, SEQUENCES))[:, :4], expected, atol=1e-5)


def test_convolutions_and_bands_are_the_same_for_a_long_sequence():
    model = Caser(num_users=3, num_items=50, sequence_length=60, dim=16)
    sequences = np.random.default_rng(0).integers(0, 51, (4, 60)).astype("int32")
    image = keras.ops.take(model.sequence_table, sequences, axis=0)
    by_bands = np.asarray(model._horizontal_in_bands(image))
    np.testing.assert_allclose(np.asarray(model._horizontal(image)), by_bands, atol=1e-5)
    # An export is asked for no rows, too, and the last batch may leave a replica without one.
    assert model._horizontal(image[:0]).shape == (0, 60 * 16)


def test_dropout_is_active_in_training_only():
    model = Caser(**TINY, dropout=0.5)
    still = [np.asarray(model.encode(USERS, SEQUENCES)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    moving = [np.asarray(model.encode(USERS, SEQUENCES, training=True)) for _ in range(2)]
    assert np.abs(moving[0] - moving[1]).max() > 0


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_every_policy_drops_the_same_numbers(policy):
    # The numbers dropped decide far more than rounding, of which there are three digits at worst.
    users, sequences = np.tile(USERS, 50), np.tile(SEQUENCES, (50, 1))
    queries = []
    for dtype in ("float32", policy):
        model = Caser(**TINY, dropout=0.4, dense_activation="identity", dtype=dtype)
        queries.append(np.asarray(model.encode(users, sequences, training=True)))
    assert np.abs(queries[0] - queries[1]).max() < 0.02 * np.abs(queries[0]).max()


def test_scores_are_float32_under_a_mixed_policy():
    model = Caser(**TINY, dtype="mixed_bfloat16")
    scores = model({"user": USERS, "sequence": SEQUENCES, "items": SEQUENCES})
    assert keras.backend.standardize_dtype(scores.dtype) == "float32"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 0}, "dim must be at least 1; received 0"),
        ({"num_items": 0}, "num_items must be at least 1; received 0"),
        ({"sequence_length": 0}, "sequence_length must be at least 1; received 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); received 1.0"),
        ({"vertical_filters": 0, "horizontal_filters": 0}, "Caser needs vertical or horizontal filters"),
        ({"conv_activation": "softsign"}, "activation must be one of .*; received 'softsign'"),
    ],
)
def test_a_size_out_of_range_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        Caser(**{**TINY, **changed})


def test_a_list_longer_than_the_catalogue_is_refused():
    with pytest.raises(ValueError, match="at most the 12 items of the catalogue; received 13"):
        Caser(**TINY).recommend(USERS, SEQUENCES, np.zeros((2, 1), int), 13)
