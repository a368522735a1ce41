"""SASRec against its formula, item by item."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rd_tf.models.registry import load_model
from rd_tf.models.sasrec import SASRec

USERS = np.array([0, 4, 1, 4, 2], "int32")
SEQUENCES = np.array([[1, 2, 3, 4], [0, 0, 9, 9], [4, 4, 5, 7], [0, 0, 0, 0], [0, 0, 0, 6]], "int32")


def random_sasrec(scale=0.7, **changed):
    sizes = {"num_users": 5, "num_items": 12, "sequence_length": 4, "dim": 6, "heads": 2, "blocks": 2, "dropout": 0.0}
    model = SASRec(**{**sizes, **changed})
    random = np.random.default_rng(0)
    model.set_weights([random.normal(scale=scale, size=weight.shape) for weight in model.get_weights()])
    return model


def queries(model, sequences=SEQUENCES, users=USERS, **more):
    return np.asarray(model.encode(users[: len(sequences)], sequences, **more))


def normalised(state, scale, offset):
    return (state - state.mean()) / np.sqrt(state.var() + 1e-8) * scale + offset


def slow_query(model, sequence):
    """The paper's network for one sequence, without its padding, a place and a head at a time."""
    weights = {weight.name: np.asarray(weight, "float64") for weight in model.weights}
    first = next((place for place, item in enumerate(sequence) if item), len(sequence))
    states = [
        weights["item_table"][item] * np.sqrt(model.dim) + weights["position_table"][place]
        for place, item in list(enumerate(sequence))[first:]
    ]
    size = model.dim // model.heads
    for block in range(model.blocks):

        def of(name, block=block):
            return weights[f"{name}_{block}"]

        keys = [state @ of("key_kernel") for state in states]
        values = [state @ of("value_kernel") + of("value_bias") for state in states]
        after = []
        for place, state in enumerate(states):
            asking = normalised(state, of("attention_scale"), of("attention_offset"))
            query, attended = asking @ of("query_kernel") + of("query_bias"), np.zeros(model.dim)
            for head in range(model.heads):
                own = slice(head * size, (head + 1) * size)
                logits = [query[own] @ key[own] / np.sqrt(size) for key in keys[: place + 1]]
                shares = np.exp(logits) / np.exp(logits).sum()
                attended[own] = sum(share * value[own] for share, value in zip(shares, values, strict=False))
            state = normalised(asking + attended, of("feed_forward_scale"), of("feed_forward_offset"))
            hidden = np.maximum(state @ of("first_kernel") + of("first_bias"), 0)
            after.append(state + hidden @ of("second_kernel") + of("second_bias"))
        states = after
    last = states[-1] if states else np.zeros(model.dim)
    return normalised(last, weights["last_scale"], weights["last_offset"])


@pytest.mark.parametrize(("heads", "blocks"), [(1, 1), (2, 1), (1, 2), (3, 3)])
def test_queries_follow_the_formula(heads, blocks):
    model = random_sasrec(heads=heads, blocks=blocks)
    expected = [slow_query(model, sequence) for sequence in SEQUENCES.tolist()]
    found = queries(model)
    assert found.shape == (5, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    scores = np.asarray(model.score_all(model.encode(USERS, SEQUENCES)))[:, 1:]
    items, biases = np.asarray(model.item_table)[1:], np.asarray(model.item_bias)[1:]
    np.testing.assert_allclose(scores, expected @ items.T + biases, rtol=1e-4, atol=1e-4)


def test_padding_is_looked_at_by_nobody():
    model = random_sasrec()
    before = queries(model)
    table = np.asarray(model.item_table).copy()
    table[0] = 99.0
    model.item_table.assign(table)
    positions = np.asarray(model.position_table).copy()
    # Padding in all rows but the first and the third.
    positions[:2] = -99.0
    model.position_table.assign(positions)
    after = queries(model)
    np.testing.assert_array_equal(after[[1, 3, 4]], before[[1, 3, 4]])
    assert np.abs(after[[0, 2]] - before[[0, 2]]).max() > 0.1


def test_a_longer_model_with_padding_is_the_shorter_one():
    longer, shorter = random_sasrec(sequence_length=7), random_sasrec(sequence_length=4)
    for old, new in zip(longer.weights, shorter.weights, strict=True):
        new.assign(np.asarray(old)[-4:] if old.name == "position_table" else old)
    padded = np.concatenate([np.zeros((5, 3), "int32"), SEQUENCES], axis=1)
    np.testing.assert_allclose(queries(longer, padded), queries(shorter), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", range(4))
def test_every_item_and_its_place_matter(place):
    model = random_sasrec()
    changed, swapped = SEQUENCES[:1].copy(), SEQUENCES[:1].copy()
    changed[0, place] = 11
    swapped[0, [place, place - 1]] = swapped[0, [place - 1, place]]
    before = queries(model, SEQUENCES[:1])
    for sequences in (changed, swapped):
        assert np.abs(queries(model, sequences) - before).max() > 1e-3


def test_users_make_no_difference_and_cost_nothing():
    model = random_sasrec()
    np.testing.assert_array_equal(queries(model), queries(model, users=np.full(5, 5, "int32")))
    assert random_sasrec(num_users=5000, unknown_user=True).count_params() == model.count_params()


@pytest.mark.parametrize(("dim", "length", "blocks"), [(50, 50, 2), (100, 20, 1)])
def test_parameters_on_gowalla(dim, length, blocks):
    model = SASRec(13_149, 14_009, length, dim, blocks=blocks)
    # Five matrices, four biases and two normalisations a block.
    expected = 14_010 * (dim + 1) + length * dim + blocks * (5 * dim**2 + 4 * dim + 2 * 2 * dim) + 2 * dim
    assert model.count_params() == expected
    sparse = [weight.name for weight in model.weights if getattr(weight, "row_sparse", False)]
    assert sparse == ["item_table", "item_bias"]


def test_dropout_is_on_in_training_only_and_follows_the_noise():
    model = random_sasrec(dropout=0.5)
    still = queries(model)
    np.testing.assert_array_equal(still, queries(model))
    noise = np.random.default_rng(1).uniform(size=(5, model.noise_width)).astype("float32")
    dropped = queries(model, training=True, noise=noise)
    np.testing.assert_array_equal(dropped, queries(model, training=True, noise=noise))
    # A row's noise is its own; the fourth row has no items, so nothing of it is left to drop.
    np.testing.assert_allclose(dropped[2:3], queries(model, SEQUENCES[2:3], training=True, noise=noise[2:3]), rtol=1e-4)
    assert (np.abs(dropped - still).max(axis=1) > 1e-3).tolist() == [True, True, True, False, True]
    own = [queries(model, training=True) for _ in range(2)]
    assert np.abs(own[0] - own[1]).max() > 1e-3
    # Nothing below the rate: nothing is dropped, but what stays is scaled up.
    everything = queries(random_sasrec(dropout=0.0), training=True)
    np.testing.assert_array_equal(everything, still)


def test_every_number_of_the_noise_is_used():
    # Small weights, so that no share is too small to be missed.
    model = random_sasrec(scale=0.3, dropout=0.5, blocks=2, heads=2)
    # 4 x 6 states; two heads of 4 x 4 shares and 2 x 4 x 6 of the first block; 2 x 4 and 2 x 6 of the last.
    assert model.noise_width == 24 + 32 + 48 + 8 + 12
    kept = np.ones((1, model.noise_width), "float32")
    whole = queries(model, SEQUENCES[:1], training=True, noise=kept)
    # Row i has all but number i.
    rows = model.noise_width
    found = queries(
        model,
        np.tile(SEQUENCES[:1], (rows, 1)),
        np.zeros(rows, "int32"),
        training=True,
        noise=1 - np.eye(rows, dtype="float32"),
    )
    changes = np.abs(found - whole).max(axis=1) > 1e-6
    states, shares, feed_forward, last_shares, last = np.split(changes, [24, 56, 104, 112])
    assert states.all()
    # An item has no share in those before it.
    np.testing.assert_array_equal(shares.reshape(2, 4, 4), np.tile(np.tri(4, dtype=bool), (2, 1, 1)))
    assert last_shares.all()
    # A hidden number may be 0 already; those behind it are not.
    assert feed_forward.reshape(2, 24)[1].all()
    assert last[6:].all()


def test_gradients_are_finite_with_padding_only():
    model = random_sasrec(dropout=0.2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.encode(USERS[:4], SEQUENCES[:4], training=True) ** 2)
    for gradient in tape.gradient(loss, [weight.value for weight in model.trainable_weights]):
        if gradient is not None:
            assert np.isfinite(np.asarray(tf.convert_to_tensor(gradient))).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_close_and_scores_stay_float32(policy):
    model, half = random_sasrec(), random_sasrec(dtype=policy)
    query = half.encode(USERS, SEQUENCES)
    assert query.dtype == "float32"
    tolerance = {"mixed_bfloat16": 0.1, "mixed_float16": 0.02}[policy]
    np.testing.assert_allclose(np.asarray(query), queries(model), rtol=tolerance, atol=tolerance)
    assert np.abs(np.asarray(query) - queries(model)).max() > 0


def test_same_seed_same_weights_and_config_makes_it_again():
    model = SASRec(5, 12, 4, 6, heads=3, blocks=1, dropout=0.3, seed=3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert (again.heads, again.blocks, again.dropout_rate) == (3, 1, 0.3)
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = SASRec(5, 12, 4, 6, seed=4)
    assert np.abs(np.asarray(other.position_table) - np.asarray(model.position_table)).max() > 0
    kernels = [weight for weight in model.weights if "kernel" in weight.name]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == len(kernels) == 5


def test_a_run_is_saved_and_loaded_with_its_short_windows(tiny_sasrec):
    model = load_model(tiny_sasrec)
    assert (type(model).__name__, model.heads, model.blocks, model.sequence_length) == ("SASRec", 2, 2, 5)
    assert model.short_windows


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 0}, "dim must be at least 1; received 0"),
        ({"blocks": 0}, "blocks must be at least 1; received 0"),
        ({"heads": 4}, "heads must divide dim; received heads=4, dim=6"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); received 1.0"),
        ({"sequence_length": 0}, "sequence_length must be at least 1; received 0"),
    ],
)
def test_sizes_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        random_sasrec(**changed)
