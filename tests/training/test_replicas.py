"""Any number of replicas and workers takes the steps of one device."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from loss_scale_replicas import check_steps
from replicas import fit, train
from training.worker_processes import finish, start

from rd_tf.training.workers import make_workers

SCRIPT = str(Path(__file__).parent / "replicas.py")


@pytest.fixture(scope="module")
def replicas(tiny_dataset):
    """What two replicas came to."""
    # Logical devices must be made before TensorFlow starts, so they have a process of their own.
    ((stdout, _),) = finish(start([SCRIPT, "mirrored", "2", tiny_dataset]))
    return json.loads(stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def workers():
    """What each of two workers came to."""
    return [json.loads(stdout.splitlines()[-1]) for stdout, _ in finish(start([SCRIPT, "auto", "0", ""], workers=2))]


@pytest.fixture(scope="module")
def alone():
    return train(make_workers("one", 0))


def check_equal(alone, shared, tolerance=1e-5):
    np.testing.assert_allclose(alone["losses"], shared["losses"], rtol=1e-5)
    for a, b in zip(alone["weights"], shared["weights"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=tolerance)


def test_two_replicas_take_the_steps_of_one_device(alone, replicas):
    check_equal(alone, replicas["trained"])


def test_two_workers_take_the_steps_of_one_device(alone, workers):
    for shared in workers:
        first = {name: values[: len(shared["trained"][name])] for name, values in alone.items()}
        check_equal(first, shared["trained"])
        # Their shares begin at 0 and at 5.
        assert shared["shares"] == [[7.0], 5]


def test_an_overflow_on_the_second_of_two_replicas_is_skipped_by_both(replicas):
    assert replicas["replicas"] == 2
    check_steps(replicas["overflows"], 2)


def test_an_overflow_on_the_second_of_two_workers_is_skipped_by_both(workers):
    for found in workers:
        assert found["replicas"] == 2
        check_steps(found["overflows"], 1)


def test_replicas_fit_as_one_device(replicas, tiny_dataset):
    check_equal(fit(tf.distribute.get_strategy(), tiny_dataset), replicas["fitted"], tolerance=2e-5)
