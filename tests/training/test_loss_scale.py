"""The loss scale: halved by an overflow on any replica, doubled later, and no trace of a skipped step."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from loss_scale_replicas import GROWTH_STEPS, OVERFLOWS, SCALE, STEPS, as_slices, gradients, make_variables, take_steps

from rd_tf.training.optimizers import OPTIMIZERS, LazyAdam, SparseLossScaleOptimizer, make_optimizer

SCRIPT = Path(__file__).parent / "loss_scale_replicas.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "TF_CPP_MIN_LOG_LEVEL": "3"}


def expected_after():
    """Scale, steps since it changed and steps counted, after each call of `take_steps`."""
    scale, since, counted, after = SCALE, 0, 0, []
    for step in range(2 * STEPS):
        if step % STEPS in OVERFLOWS:
            scale, since = scale / 2, 0
        else:
            counted += 1
            since += 1
            if since == GROWTH_STEPS:
                scale, since = scale * 2, 0
        after.append([scale, since, counted])
    return [*after[:STEPS], after[-1]]


def expected_weights(name):
    """One device that is given the finite steps only, and no loss scale."""
    table, dense = make_variables()
    optimizer = make_optimizer(name, 0.1, 1e-3)
    of_table, of_dense = gradients()
    for step in range(2 * STEPS):
        if step % STEPS not in OVERFLOWS:
            number = step % STEPS
            optimizer.apply([as_slices(tf.constant(of_table[number])), tf.constant(of_dense[number])], [table, dense])
    optimizer.finalize_variable_values([table, dense])
    return [np.asarray(table), np.asarray(dense)]


def check(found, local_replicas):
    for name in OPTIMIZERS:
        assert found[name]["after"] == [[[value] * local_replicas for value in row] for row in expected_after()]
        for copies, expected in zip(found[name]["weights"], expected_weights(name), strict=True):
            assert len(copies) == local_replicas
            for copy in copies:
                np.testing.assert_allclose(copy, expected, rtol=1e-5, atol=1e-6)


def start(replicas, **more):
    command = [sys.executable, str(SCRIPT), str(replicas)]
    return subprocess.Popen(
        command, env={**ENVIRONMENT, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(processes):
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def test_one_device_skips_overflows_without_a_trace():
    check({name: take_steps(tf.distribute.get_strategy(), name) for name in OPTIMIZERS}, 1)


def test_an_overflow_on_the_second_of_two_replicas_is_skipped_by_both():
    # Logical devices must be made before TensorFlow starts, so they have a process of their own.
    (found,) = finish([start(2)])
    assert found["replicas"] == 2
    check(found, 2)


def test_an_overflow_on_the_second_of_two_workers_is_skipped_by_both():
    with socket.socket() as one, socket.socket() as other:
        for listening in (one, other):
            listening.bind(("localhost", 0))
        addresses = [f"localhost:{listening.getsockname()[1]}" for listening in (one, other)]
    workers = [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}) for index in (0, 1)
    ]
    for found in finish([start(1, TF_CONFIG=worker) for worker in workers]):
        assert found["replicas"] == 2
        check(found, 1)


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
