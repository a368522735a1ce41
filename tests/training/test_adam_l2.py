"""The optimizer: the authors' three steps, a slow oracle, sparse and dense gradients alike."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from authors_weights import authors_weights, getattr_path

from rd_tf.training.distiller import RankingDistiller
from rd_tf.training.optimizers import AdamL2


def test_three_training_steps_agree_with_the_authors(conformance, caser_from_state):
    case = conformance("adam_steps")
    model = caser_from_state(case, case["before"], len(case["steps"][0]["sequences"][0]))
    distiller = RankingDistiller(model)
    distiller.compile(AdamL2(case["learning_rate"], case["l2"]))
    for batch in case["steps"]:
        items = np.concatenate([batch["targets"], batch["negatives"]], 1)
        labels = np.zeros(items.shape, "float32")
        labels[:, : len(batch["targets"][0])] = 1
        reported = distiller.step(
            {
                "user": tf.constant(np.array(batch["users"])[:, 0], tf.int32),
                "sequence": tf.constant(batch["sequences"], tf.int32),
                "items": tf.constant(items, tf.int32),
                "labels": tf.constant(labels),
                "global_size": tf.constant(len(items)),
            },
            with_student_rank=False,
        )
        np.testing.assert_allclose(reported[0], batch["loss"], rtol=1e-5)
    after = authors_weights(model, {name: np.array(value, "float32") for name, value in case["after"].items()})
    for name, expected in after.items():
        np.testing.assert_allclose(getattr_path(model, name), expected, rtol=1e-5, atol=1e-6, err_msg=name)


def oracle(weight, gradients, learning_rate, l2):
    """Kingma & Ba, algorithm 1, with l2 * weight added to each gradient."""
    m = v = np.zeros_like(weight)
    for t, gradient in enumerate(gradients, 1):
        g = gradient + l2 * weight
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        weight = weight - learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return weight


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("l2", [0.0, 1e-6, 0.1])
def test_updates_equal_a_slow_oracle_on_all_rows(sparse, l2):
    random = np.random.default_rng(0)
    start = random.normal(size=(5, 3))
    variable = keras.Variable(start.astype("float32"))
    optimizer = AdamL2(0.05, l2)
    dense = []
    for _ in range(4):
        # Row 1 occurs twice, rows 0 and 4 never.
        rows, values = np.array([1, 3, 1, 2]), random.normal(size=(4, 3))
        full = np.zeros((5, 3))
        np.add.at(full, rows, values)
        dense.append(full)
        gradient = tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(rows), tf.constant([5, 3]))
        optimizer.apply([gradient if sparse else tf.constant(full, tf.float32)], [variable])
    np.testing.assert_allclose(variable, oracle(start, dense, 0.05, l2), rtol=2e-5, atol=2e-6)


def test_rows_outside_the_batch_shrink_at_nearly_the_learning_rate():
    variable = keras.Variable(np.ones((2, 1), "float32"))
    gradient = tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([0]), tf.constant([2, 1]))
    AdamL2(0.1, l2=1e-6).apply([gradient], [variable])
    np.testing.assert_allclose(np.asarray(variable)[1], 1 - 0.1 * 1e-6 / (1e-6 + 1e-8), rtol=1e-4)


def test_it_survives_serialization():
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(AdamL2(0.02, l2=0.5, epsilon=1e-7)))
    assert (float(optimizer.learning_rate), optimizer.l2, optimizer.epsilon) == (pytest.approx(0.02), 0.5, 1e-7)


def test_a_negative_l2_is_refused():
    with pytest.raises(ValueError, match="l2 must be at least 0; received -1"):
        AdamL2(l2=-1)
