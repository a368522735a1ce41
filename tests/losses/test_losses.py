"""Ranking and distillation loss: by hand, by the authors' numbers, at the edges."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from rd_tf.losses.distillation import WeightedPointwiseDistillation, weighted_pointwise
from rd_tf.losses.ranking import PointwiseLogLoss


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
