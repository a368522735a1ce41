"""Losses of items drawn from a teacher's list: by hand, by slow oracles, on average, at the edges."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from rd_tf.losses.distillation import (
    CollaborativeDistillation,
    DualCorrectionDistillation,
    MarginMSEDistillation,
    RankDistil,
    RelaxedRankingDistillation,
    UnbiasedDistillation,
)

NEVER = -np.inf
RANDOM = np.random.default_rng(0)
LOSSES = [
    RelaxedRankingDistillation(position_temperature=3.0, list_samples=2),
    CollaborativeDistillation(position_temperature=3.0, list_samples=2, score_temperature=0.2, score_bias=0.1),
    DualCorrectionDistillation(sharpness=0.3, list_samples=2),
    UnbiasedDistillation(position_temperature=3.0, list_samples=2, popularity_groups=3),
    MarginMSEDistillation(score_temperature=0.3),
    RankDistil(score_temperature=0.2, list_samples=2),
]
by_name = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def told(**values):
    given = {name: np.array(value, "int32" if name == "item_groups" else "float32") for name, value in values.items()}
    return {"list_noise": np.full(next(iter(given.values())).shape, 0.5, "float32"), **given}


def noise_for(order):
    """Noise that draws the items of a list in an order, whatever their weights: the first has the largest number."""
    noise = np.empty((1, len(order)), "float32")
    # The Gumbel numbers are 13.8, -0.8, -1.2, ...: more than enough for weights that are alike.
    noise[0, list(order)] = [0.999999, *np.linspace(0.1, 0.01, len(order) - 1)]
    return noise


def logits_of(*rows):
    return np.array(rows, "float32")


def order_losses(logits, rest):
    """Of a list in an order: - log of the probability of each place. In float64, one place after the other."""
    return [np.logaddexp.reduce([*logits[k:], *rest]) - logits[k] for k in range(len(logits))]


def test_rrd_by_hand():
    # exp of the list's logits: 2 and 1, of the negatives 1 and none: 2 / 4, then 1 / 2.
    given = told(teacher_scores=[[0, 0]], shared_logits=[[0, NEVER]]) | {"list_noise": np.full((1, 2), 0.5, "float32")}
    loss = RelaxedRankingDistillation().call(given, logits_of([np.log(2), 0.0]))
    np.testing.assert_allclose(loss, [2 * np.log(2)], rtol=1e-6)


def test_rrd_takes_the_drawn_items_in_the_teachers_order_and_leaves_the_others_out():
    logits, rest = logits_of([0.3, 9.0, -0.4, 1.0]), [0.5, -2.0]
    given = {"shared_logits": logits_of(rest), "list_noise": noise_for([2, 0, 1, 3])}
    loss = RelaxedRankingDistillation(position_temperature=1e6, list_samples=2).call(given, logits)
    np.testing.assert_allclose(loss, [sum(order_losses([0.3, -0.4], rest))], rtol=1e-6)


def test_items_are_drawn_by_their_place():
    rows, temperature = 20_000, 2.0
    given = {
        "list_noise": RANDOM.random((rows, 3)).astype("float32"),
        # Labels of 0, so that the loss is softplus of the one drawn logit.
        "teacher_scores": np.full((rows, 3), -1e3, "float32"),
    }
    loss = CollaborativeDistillation(temperature, list_samples=1)
    found = np.log(np.expm1(np.asarray(loss.call(given, np.tile(logits_of([0.0, 1.0, 2.0]), (rows, 1))))))
    counts = np.bincount(np.rint(found).astype(int), minlength=3)
    expected = np.exp(-np.arange(1, 4) / temperature)
    expected *= rows / expected.sum()
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_none_is_drawn_twice():
    given = {
        "list_noise": RANDOM.random((500, 4)).astype("float32"),
        "teacher_scores": np.full((500, 4), -1e3, "float32"),
    }
    logits = np.tile(logits_of([0.0, 1.0, 10.0, 100.0]), (500, 1))
    loss = np.asarray(CollaborativeDistillation(2.0, list_samples=2).call(given, logits))
    singles = np.logaddexp(0, logits[0])
    sums = [sum(pair) for pair in itertools.combinations(singles, 2)]
    assert np.abs(loss[:, None] - sums).min(1).max() < 1e-3


def test_cd_by_hand():
    # Labels sigmoid(0) = 1/2 and sigmoid(log 3) = 3/4; softplus(0) = log 2, softplus(log 3) = log 4.
    given = told(teacher_scores=[[0.1, 0.1 + 0.2 * np.log(3)]])
    loss = CollaborativeDistillation(score_temperature=0.2, score_bias=0.1).call(given, logits_of([0.0, np.log(3)]))
    np.testing.assert_allclose(loss, [np.log(2) + np.log(4) - 0.75 * np.log(3)], rtol=1e-6)


def test_dcd_draws_what_the_student_ranks_too_low_and_weighs_what_it_ranks_too_high():
    # Teacher's ranks are 0 and 1. In the first row only the second item, with the logit 0, is too low, and the
    # negatives 0.5 and 3 are above it; in the second row none is.
    given = told(student_rank=[[0, 3], [0, 1]], shared_logits=[[0.5, -1, 3]] * 2)
    given["list_noise"] = np.full((2, 2), 0.5, "float32")
    loss = DualCorrectionDistillation(sharpness=0.5)
    logits = logits_of([2.0, 0.0], [2.0, 0.0])
    np.testing.assert_allclose(loss.weight(given, logits), [[0, np.tanh(1.0)], [0, 0]], rtol=1e-6)
    expected = np.log(1 + np.tanh(0.5) * (np.exp(0.5) + np.exp(3)))
    np.testing.assert_allclose(loss.call(given, logits), [expected, 0.0], rtol=1e-6)


def test_dcd_without_ranks_takes_the_whole_list():
    given = told(shared_logits=[[0.5, -1, 3]]) | {"list_noise": np.full((1, 2), 0.5, "float32")}
    rest = [np.log(np.tanh(0.5)) + 0.5, np.log(np.tanh(1.0)) + 3]
    loss = DualCorrectionDistillation(sharpness=0.5).call(given, logits_of([2.0, 0.0]))
    np.testing.assert_allclose(loss, [sum(order_losses([2.0, 0.0], rest))], rtol=1e-6)


def test_unkd_by_hand():
    # log(1 + 3 / 1) of the pair in group 0, log(1 + 1) of that in group 1; the second list has no pair.
    given = told(item_groups=[[0, 1, 0, 1], [0, 1, 2, 3]])
    logits = logits_of([0.0, 5.0, np.log(3), 5.0], [1.0, 2.0, 3.0, 4.0])
    loss = UnbiasedDistillation(popularity_groups=4).call(given, logits)
    np.testing.assert_allclose(loss, [(np.log(4) + np.log(2)) / 2, 0.0], rtol=1e-6)


def test_unkd_draws_by_the_place_within_a_group():
    # The first of group 0 and the first of group 1, which make no pair, though the second of group 0 stands higher.
    given = told(item_groups=[[0, 0, 0, 1]])
    loss = UnbiasedDistillation(1e-3, list_samples=2, popularity_groups=2).call(given, logits_of([0.0, 1, 2, 3]))
    np.testing.assert_array_equal(loss, [0.0])
    # Of three, the third is the second of group 0.
    loss = UnbiasedDistillation(1e-3, list_samples=3, popularity_groups=2).call(given, logits_of([0.0, 1, 2, 3]))
    np.testing.assert_allclose(loss, [np.logaddexp(0, 1)], rtol=1e-6)


def test_margin_mse_is_the_mean_over_pairs():
    scores, logits = RANDOM.normal(size=(3, 5)).astype("float32"), RANDOM.normal(size=(3, 5)).astype("float32")
    pairs = list(itertools.permutations(range(5), 2))
    expected = [
        np.mean([((t[i] - t[j]) / 0.5 - (s[i] - s[j])) ** 2 for i, j in pairs])
        for t, s in zip(scores, logits, strict=True)
    ]
    loss = MarginMSEDistillation(score_temperature=0.5).call({"teacher_scores": scores}, logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_margin_mse_of_a_list_of_one_item_is_0():
    np.testing.assert_array_equal(MarginMSEDistillation().call(told(teacher_scores=[[3]]), logits_of([5.0])), [0.0])


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_rankdistil_with_a_small_temperature_is_the_likelihood_of_the_teachers_order(size):
    logits = (size * RANDOM.normal(size=(4, 13))).astype("float32")
    shared = (size * RANDOM.normal(size=(4, 7))).astype("float32")
    shared[0], shared[1, :3] = NEVER, NEVER
    scores = np.tile(np.arange(13, 0, -1, dtype="float32"), (4, 1))
    given = {"teacher_scores": scores, "shared_logits": shared, "list_noise": RANDOM.random((4, 13), "float32")}
    expected = [order_losses(x, rest) for x, rest in zip(logits.astype(float), shared.astype(float), strict=True)]
    for places in (13, 3):
        loss = RankDistil(score_temperature=1e-3, list_samples=places).call(given, logits)
        np.testing.assert_allclose(loss, np.sum(np.array(expected)[:, :places], 1), rtol=1e-5)


def test_rankdistil_is_the_cross_entropy_of_the_two_distributions_on_average():
    rows, scores, logits, rest = 20_000, np.array([0.3, 0.1, 0.0]), np.array([0.2, 1.0, -0.5]), [0.4]
    expected = sum(
        np.exp(-sum(order_losses((scores / 0.2)[list(order)], []))) * sum(order_losses(logits[list(order)], rest)[:2])
        for order in itertools.permutations(range(3))
    )
    given = {
        "teacher_scores": np.tile(scores.astype("float32"), (rows, 1)),
        "shared_logits": np.tile(logits_of(rest), (rows, 1)),
        "list_noise": RANDOM.random((rows, 3), "float32"),
    }
    loss = np.asarray(
        RankDistil(score_temperature=0.2, list_samples=2).call(given, np.tile(logits_of(logits), (rows, 1)))
    )
    assert abs(loss.mean() - expected) < 5 * loss.std() / np.sqrt(rows)


def random_told(rows=6, length=4, shared=5):
    return {
        "teacher_scores": -np.sort(-RANDOM.normal(size=(rows, length)).astype("float32")),
        "list_noise": RANDOM.random((rows, length), "float32"),
        "student_rank": RANDOM.integers(0, 9, (rows, length)).astype("float32"),
        "item_groups": RANDOM.integers(0, 3, (rows, length)).astype("int32"),
        "shared_logits": RANDOM.normal(size=(rows, shared)).astype("float32"),
    }


@by_name
def test_a_lists_logits_are_corrected_where_they_stand_beside_shared_ones(loss):
    given, logits = random_told(), RANDOM.normal(size=(6, 4)).astype("float32")
    ratio = np.array([[1.5, -0.7, 0.3, -2.0]], "float32")
    corrected, plain = loss.call({**given, "log_ratio": ratio}, logits), loss.call(given, logits)
    if "shared_logits" in loss.needs:
        np.testing.assert_allclose(corrected, loss.call(given, logits - ratio), rtol=1e-5, atol=1e-6)
        assert np.abs(corrected - plain).max() > 0.01
    else:
        np.testing.assert_array_equal(corrected, plain)


@by_name
@pytest.mark.parametrize("size", [1.0, 1e3])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_without_negatives_at_any_size_and_noise_the_loss_and_its_gradient_are_finite(loss, size, noise):
    given, own = random_told(), tf.constant(size * RANDOM.normal(size=(6, 4)), tf.float32)
    shared = tf.constant(size * RANDOM.normal(size=(6, 5)), tf.float32)
    given["list_noise"] = np.full((6, 4), noise, "float32")
    with tf.GradientTape() as tape:
        tape.watch([own, shared])
        # As the distiller masks: no negative in the first three rows, some in the others.
        masked = tf.where(tf.range(6)[:, None] > tf.range(5)[None, :] + 2, shared, NEVER)
        value = loss.call({**given, "shared_logits": masked}, own)
    assert value.shape == (6,)
    assert np.isfinite(value).all()
    gradients = tape.gradient(value, [own, shared], unconnected_gradients="zero")
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_array_equal(gradients[1][:3], np.zeros((3, 5)))


@by_name
def test_a_loss_falls_along_its_gradient_where_it_has_one(loss):
    """Central differences in float32: the gradient is that of the value, ties and masks included."""
    given, logits = random_told(), RANDOM.normal(size=(6, 4)).astype("float32")
    logits[0] = 0.0
    given["shared_logits"][1] = NEVER
    own = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(own)
        value = loss.call(given, own)
    gradient = np.asarray(tape.gradient(value, own))
    direction = RANDOM.normal(size=(6, 4)).astype("float32")
    # Negatives that are as high as an item of the list would change their weight on the way.
    step = 1e-3
    ahead, behind = (np.asarray(loss.call(given, logits + sign * step * direction)) for sign in (1, -1))
    slope = (ahead - behind) / (2 * step)
    np.testing.assert_allclose((gradient * direction).sum(1), slope, rtol=2e-2, atol=2e-2)


@by_name
def test_a_longer_list_than_there_are_samples_and_a_shorter_one_work(loss):
    for length in (1, 2, 9):
        value = loss.call(random_told(length=length), RANDOM.normal(size=(6, length)).astype("float32"))
        assert np.isfinite(value).all()


@by_name
def test_a_loss_survives_serialization(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert again.popularity_groups == loss.popularity_groups


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RelaxedRankingDistillation(position_temperature=0.0),
            "position_temperature must be above 0; received 0.0",
        ),
        (lambda: RelaxedRankingDistillation(list_samples=0), "list_samples must be at least 1; received 0"),
        (lambda: CollaborativeDistillation(score_temperature=-1.0), "score_temperature must be above 0; received -1.0"),
        (lambda: DualCorrectionDistillation(sharpness=-0.1), "sharpness must be at least 0; received -0.1"),
        (lambda: UnbiasedDistillation(popularity_groups=0), "popularity_groups must be at least 1; received 0"),
        (
            lambda: MarginMSEDistillation(score_temperature=float("nan")),
            "score_temperature must be above 0; received nan",
        ),
        (lambda: RankDistil(list_samples=0), "list_samples must be at least 1; received 0"),
    ],
)
def test_an_argument_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
