"""The loss scale: halved by an overflow, doubled later, and no trace of a skipped step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from loss_scale_replicas import GROWTH_STEPS, SCALE, as_slices, check_steps, make_variables, take_steps

from rd_tf.training.optimizers import OPTIMIZERS, LazyAdam, SparseLossScaleOptimizer, make_optimizer


def test_one_device_skips_overflows_without_a_trace():
    check_steps({name: take_steps(tf.distribute.get_strategy(), name) for name in OPTIMIZERS}, 1)


def made(name):
    variables = make_variables()
    optimizer = SparseLossScaleOptimizer(make_optimizer(name, 0.1, 1e-3), SCALE, GROWTH_STEPS)
    optimizer.build(list(variables))

    def step(value):
        filled = [tf.fill(shape, tf.constant(value, tf.float32)) for shape in ([2, 2], [3])]
        optimizer.apply([as_slices(filled[0]), filled[1]], list(variables))

    return step, [*variables, *optimizer.variables]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_variables_are_all_that_a_checkpoint_needs(name):
    step, state = made(name)
    for value in (1.0, np.inf, 1.0):
        step(value)
    other_step, other_state = made(name)
    for variable, saved in zip(other_state, state, strict=True):
        variable.assign(np.asarray(saved))
    for go_on in (step, other_step):
        # The second finite step in a row doubles the scale, the third is taken with it.
        go_on(2.0)
        go_on(3.0)
    for one, other in zip(state, other_state, strict=True):
        np.testing.assert_array_equal(one, other)


def test_moments_and_weights_are_float32():
    _, state = made("lazy_adam")
    assert {str(np.asarray(value).dtype) for value in state} <= {"float32", "int32", "int64"}


def test_it_survives_serialization():
    optimizer = SparseLossScaleOptimizer(LazyAdam(0.02, l2=0.5), initial_scale=4.0, dynamic_growth_steps=3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert (again.initial_scale, again.dynamic_growth_steps, again.inner_optimizer.l2) == (4.0, 3, 0.5)
