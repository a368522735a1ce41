"""Ranking and distillation loss: by hand, by the authors' numbers, at the edges."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from rd_tf.losses.distillation import (
    ListwiseSoftmaxDistillation,
    WeightedPointwiseDistillation,
    weighted_pointwise,
)
from rd_tf.losses.ranking import (
    BayesianPersonalizedRanking,
    FullSoftmax,
    GeneralizedBinaryCrossEntropy,
    PointwiseLogLoss,
    SampledSoftmax,
)


def test_log_loss_by_hand():
    # -log sigmoid(0) = log 2 for the positive; -log(1 - sigmoid(log 3)) = log 4 for the negative.
    loss = PointwiseLogLoss(reduction=None)(np.array([[1.0, 0.0]]), np.array([[0.0, np.log(3.0)]]))
    np.testing.assert_allclose(loss, [np.log(2) + np.log(4)], rtol=1e-6)


def test_padding_label_is_ignored():
    loss = PointwiseLogLoss(reduction=None)(np.array([[1.0, -1.0]]), np.array([[0.0, 7.0]]))
    np.testing.assert_allclose(loss, [np.log(2)], rtol=1e-6)


def test_distillation_loss_by_hand():
    loss = weighted_pointwise(np.array([[0.5, 0.25]]), np.array([[0.0, -np.log(3.0)]]))
    np.testing.assert_allclose(loss, [0.5 * np.log(2) + 0.25 * np.log(4)], rtol=1e-6)


def test_losses_agree_with_the_authors(conformance):
    case = conformance("losses")
    logits = np.concatenate([case["positive"], case["negative"]], 1).astype("float32")
    labels = np.zeros_like(logits)
    labels[:, : len(case["positive"][0])] = 1
    ranking = PointwiseLogLoss()(labels, logits)
    np.testing.assert_allclose(ranking, case["ranking_loss"], rtol=1e-5)
    np.testing.assert_allclose(ranking, case["plain"], rtol=1e-5)
    distillation = ops.mean(weighted_pointwise(np.array(case["weight"]), np.array(case["candidates"])))
    np.testing.assert_allclose(ranking + case["alpha"] * distillation, case["loss"], rtol=1e-5)


@pytest.mark.parametrize("size", [50.0, 1e4])
def test_huge_logits_give_the_exact_loss_and_finite_gradients(size):
    logits = tf.constant([[size, -size, size, -size]])
    labels = tf.constant([[1.0, 1.0, 0.0, 0.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ranking = PointwiseLogLoss()(labels, logits)
        distillation = ops.mean(weighted_pointwise(tf.ones((1, 4)), logits))
    np.testing.assert_allclose(ranking, 2 * size, rtol=1e-6)
    np.testing.assert_allclose(distillation, 2 * size, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(ranking, logits), [[0, -1, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(tape.gradient(distillation, logits), [[0, -1, 0, -1]], atol=1e-6)


def test_no_gradient_flows_into_the_weights():
    weights = tf.constant([[0.3, 0.7]])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = weighted_pointwise(weights, tf.constant([[1.0, 2.0]]))
    assert tape.gradient(loss, weights) is None


def test_a_loss_survives_serialization():
    loss = keras.losses.deserialize(keras.losses.serialize(PointwiseLogLoss(reduction="sum")))
    np.testing.assert_allclose(loss(np.ones((2, 3)), np.zeros((2, 3))), 6 * np.log(2), rtol=1e-6)
    loss = keras.losses.deserialize(keras.losses.serialize(WeightedPointwiseDistillation(2.0, 0.5, renormalize=True)))
    assert (loss.temperature, loss.sharpness, loss.renormalize) == (2.0, 0.5, True)


def test_the_distillation_loss_weighs_by_position_and_by_the_students_rank():
    loss, logits = WeightedPointwiseDistillation(temperature=1.0, sharpness=0.5), ops.zeros((1, 2))
    position = np.exp([-1.0, -2.0]) / np.exp([-1.0, -2.0]).sum()
    np.testing.assert_allclose(loss.call({}, logits), [np.log(2)], rtol=1e-6)
    weight = position * np.tanh(0.5 * np.array([3.0, 1.0]))
    told = {"student_rank": ops.convert_to_tensor([[3.0, 2.0]])}
    np.testing.assert_allclose(loss.weight(told, logits), [weight], rtol=1e-6)
    np.testing.assert_allclose(loss.call(told, logits), [weight.sum() * np.log(2)], rtol=1e-6)


NEVER = -np.inf


def told(**values):
    return {name: np.array(value, "float32") for name, value in values.items()}


def test_bpr_by_hand():
    # Targets 0 and log 2, negatives log 3 and 0; the padding makes no pair: log(1 + n / t) of the four quotients.
    labels = np.array([[1.0, 1.0, 0.0, 0.0, -1.0]], "float32")
    logits = np.array([[0.0, np.log(2.0), np.log(3.0), 0.0, 9.0]], "float32")
    loss = BayesianPersonalizedRanking().call(labels, logits)
    np.testing.assert_allclose(loss, [np.mean(np.log([4.0, 2.0, 2.5, 1.5]))], rtol=1e-6)


def test_bpr_of_a_row_without_a_pair_is_0():
    labels, logits = np.array([[1.0, -1.0], [-1.0, 0.0]], "float32"), np.array([[3.0, 4.0], [5.0, 6.0]], "float32")
    np.testing.assert_array_equal(BayesianPersonalizedRanking().call(labels, logits), [0.0, 0.0])


def test_sampled_softmax_by_hand():
    # exp: target 2 against 1 and 3; then two targets, 1 and 2, against 3 alone. A masked negative is none.
    given = told(labels=[[1, -1], [1, 1]], shared_logits=[[0, np.log(3), NEVER], [NEVER, np.log(3), NEVER]])
    loss = SampledSoftmax().call(given, np.array([[np.log(2), 7.0], [0.0, np.log(2)]], "float32"))
    np.testing.assert_allclose(loss, [np.log(6 / 2), np.log(4 / 1) + np.log(5 / 2)], rtol=1e-6)


def test_full_softmax_by_hand():
    given = told(labels=[[1, -1]], all_logits=[[NEVER, 0, np.log(2), np.log(3)]])
    loss = FullSoftmax().call(given, np.array([[np.log(3), 0.0]], "float32"))
    np.testing.assert_allclose(loss, [np.log(6 / 3)], rtol=1e-6)


def test_gbce_by_hand():
    # 2 of 4 negatives, so alpha = 1/2 and beta = 1 - 3/4 * 1/2; sigmoid(log 3) = 3/4.
    given = told(labels=[[1, -1]], shared_logits=[[0, NEVER, np.log(3), NEVER]]) | {"num_items": 5}
    loss = GeneralizedBinaryCrossEntropy(calibration=0.75).call(given, np.array([[np.log(3), 7.0]], "float32"))
    np.testing.assert_allclose(loss, [0.625 * np.log(4 / 3) + np.log(2) + np.log(4)], rtol=1e-6)


def test_gbce_without_calibration_or_with_every_negative_is_the_log_loss():
    logits, labels = np.array([[0.3, -1.0, 2.0]], "float32"), np.array([[1.0, 0.0, 0.0]], "float32")
    expected = PointwiseLogLoss().call(labels, logits)
    given = told(labels=[[1]], shared_logits=logits[:, 1:])
    for calibration, items in ((0.0, 100), (1.0, 3), (1.0, 2)):
        loss = GeneralizedBinaryCrossEntropy(calibration).call({**given, "num_items": items}, logits[:, :1])
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_gbce_refuses_a_calibration_out_of_range():
    with pytest.raises(ValueError, match="calibration must be from 0 to 1; received 2"):
        GeneralizedBinaryCrossEntropy(2)


def test_listwise_by_hand():
    # The teacher's probabilities are 3/4 and 1/4; exp of the student's logits 1 and 2, of the negative 5.
    given = told(teacher_scores=[[0.2 * np.log(3), 0]], shared_logits=[[np.log(5), NEVER]])
    loss = ListwiseSoftmaxDistillation(score_temperature=0.2).call(given, np.array([[0.0, np.log(2)]], "float32"))
    np.testing.assert_allclose(loss, [0.75 * np.log(8 / 1) + 0.25 * np.log(8 / 2)], rtol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [SampledSoftmax(), GeneralizedBinaryCrossEntropy(), ListwiseSoftmaxDistillation()],
    ids=lambda loss: loss.name,
)
def test_a_rows_own_logits_are_corrected_for_how_often_the_items_are_drawn(loss):
    given = told(labels=[[1, 1]], shared_logits=[[0.5, -1.0]], teacher_scores=[[0.2, 0.1]]) | {"num_items": 9}
    logits, ratio = np.array([[0.3, 2.0]], "float32"), np.array([[1.5, -0.7]], "float32")
    corrected = loss.call({**given, "log_ratio": ratio}, logits)
    np.testing.assert_allclose(corrected, loss.call(given, logits - ratio), rtol=1e-6)
    assert abs(float(corrected[0] - loss.call(given, logits)[0])) > 0.01


@pytest.mark.parametrize(
    "loss",
    [SampledSoftmax(), GeneralizedBinaryCrossEntropy(), ListwiseSoftmaxDistillation()],
    ids=lambda loss: loss.name,
)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_row_without_a_shared_negative_has_a_finite_loss_and_gradient(loss, size):
    own, shared = tf.constant([[size, -size]]), tf.constant([[size, 0.0]])
    given = told(labels=[[1, 1]], teacher_scores=[[0.2, 0.1]]) | {"num_items": 9}
    with tf.GradientTape() as tape:
        tape.watch([own, shared])
        # As the distiller masks.
        masked = tf.where(tf.constant([[False, False]]), shared, -float("inf"))
        value = loss.call({**given, "shared_logits": masked}, own)
    of_own, of_shared = tape.gradient(value, [own, shared])
    assert np.isfinite(value).all()
    assert np.isfinite(of_own).all()
    np.testing.assert_array_equal(of_shared, [[0.0, 0.0]])


@pytest.mark.parametrize(
    "loss",
    [
        BayesianPersonalizedRanking(),
        SampledSoftmax(),
        FullSoftmax(),
        GeneralizedBinaryCrossEntropy(calibration=0.3),
        ListwiseSoftmaxDistillation(score_temperature=0.7),
    ],
    ids=lambda loss: loss.name,
)
def test_every_loss_survives_serialization(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
