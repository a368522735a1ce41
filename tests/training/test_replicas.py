"""Any number of replicas and workers takes the steps of one device."""

import json
from pathlib import Path

import numpy as np
import pytest
from training.worker_processes import finish, start

SCRIPT = str(Path(__file__).parent / "replicas.py")


@pytest.fixture(scope="module")
def alone():
    return json.loads(finish(start([SCRIPT, "one", "0"]))[0][0])


def check_equal(alone, shared):
    np.testing.assert_allclose(alone["losses"], shared["losses"], rtol=1e-5)
    for a, b in zip(alone["weights"], shared["weights"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_two_replicas_take_the_steps_of_one_device(alone):
    # Logical devices must be made before TensorFlow starts, so each world has a process of its own.
    check_equal(alone, json.loads(finish(start([SCRIPT, "mirrored", "2"]))[0][0]))


def test_two_workers_take_the_steps_of_one_device(alone):
    for stdout, _ in finish(start([SCRIPT, "auto", "0"], workers=2)):
        shared = json.loads(stdout.splitlines()[-1])
        check_equal(alone, shared)
        # Their shares begin at 0 and at 5.
        assert shared["shares"] == [[7.0], 5]
