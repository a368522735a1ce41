"""The warm-up: its rates by hand, and the same training by both optimizers while it rises."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rd_tf.training.optimizers import OPTIMIZERS, AdamL2, LazyAdam, LinearWarmup, make_optimizer

ROWS = 4


def table(values):
    variable = keras.Variable(np.asarray(values, "float32"))
    variable.row_sparse = True
    return variable


def gradient_of_row_1(value=1.0):
    return tf.IndexedSlices(tf.fill([1, 2], value), tf.constant([1]), tf.constant([ROWS, 2]))


def test_the_rate_rises_linearly_and_stays():
    warmup = LinearWarmup(0.1, 4)
    np.testing.assert_allclose([float(warmup(step)) for step in range(6)], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    # An optimizer counts its steps in a variable of whole numbers.
    np.testing.assert_allclose(warmup(tf.constant(1, tf.int64)), 0.05)


def test_a_rise_of_one_step_is_none():
    assert [float(LinearWarmup(0.5, 1)(step)) for step in (0, 1, 1000)] == [0.5, 0.5, 0.5]


def test_no_warmup_leaves_the_rate_a_number():
    optimizer = make_optimizer("adam", 0.1, 0.0, warmup_steps=0)
    assert isinstance(optimizer._learning_rate, keras.Variable)
    assert isinstance(make_optimizer("adam", 0.1, 0.0, warmup_steps=3)._learning_rate, LinearWarmup)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_steps_are_as_large_as_the_rates(name):
    # Adam moves a weight whose gradient never changes by the rate, whatever the gradient.
    variable = table(np.zeros((ROWS, 2)))
    optimizer = make_optimizer(name, 0.1, 0.0, warmup_steps=4)
    moved = []
    for _ in range(6):
        before = np.asarray(variable)[1]
        optimizer.apply([gradient_of_row_1()], [variable])
        moved.append(before - np.asarray(variable)[1])
    np.testing.assert_allclose(np.array(moved)[:, 0], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=1e-4)


@pytest.mark.parametrize("upkeep_steps", [1, 3, 1000])
def test_unused_rows_shrink_as_in_dense_adam_while_the_rate_rises(upkeep_steps):
    # 5 steps of the rise and 3 after it: the rates sum to .02 * (1 + 2 + 3 + 4) + .1 * 4 = .6.
    schedule = LinearWarmup(0.1, 5)
    variables = [keras.Variable(np.ones((ROWS, 2), "float32")), table(np.ones((ROWS, 2)))]
    optimizers = [AdamL2(schedule, 1e-4), LazyAdam(schedule, 1e-4, upkeep_steps)]
    for optimizer, variable in zip(optimizers, variables, strict=True):
        for _ in range(8):
            optimizer.apply([gradient_of_row_1()], [variable])
        optimizer.finalize_variable_values([variable])
    dense, lazy = (np.asarray(variable)[[0, 2, 3]] for variable in variables)
    np.testing.assert_allclose(lazy, 0.4, rtol=0.02)
    # With the rate of the last step for all of them, .2 would be left.
    np.testing.assert_allclose(lazy, dense, rtol=0.06)


def test_what_is_made_up_is_the_same_however_often_it_is():
    # Rows that are in use are held by their gradients' sum of squares, so that the shrinking is in proportion.
    found = []
    for upkeep_steps in (1, 10):
        variable = table(np.ones((ROWS, 2)))
        optimizer = LazyAdam(LinearWarmup(0.1, 8), 1e-3, upkeep_steps)
        optimizer.apply([tf.constant(np.ones((ROWS, 2), "float32"))], [variable])
        for _ in range(9):
            optimizer.apply([gradient_of_row_1(0.0)], [variable])
        optimizer.finalize_variable_values([variable])
        found.append(np.asarray(variable))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
    assert np.all(found[0] < 1 - 0.0125)


def test_it_survives_serialization():
    for optimizer in (AdamL2(LinearWarmup(0.02, 7)), LazyAdam(LinearWarmup(0.02, 7), upkeep_steps=9)):
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert again._learning_rate.get_config() == {"learning_rate": 0.02, "steps": 7}


@pytest.mark.parametrize(("learning_rate", "steps"), [(0.1, 0), (0.0, 5)])
def test_what_is_out_of_range_is_refused(learning_rate, steps):
    with pytest.raises(ValueError, match=f"received learning_rate={learning_rate}, steps={steps}"):
        LinearWarmup(learning_rate, steps)
