"""Holm's correction by hand and against a plain oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_tf.evaluation.metrics import holm


def test_holm_by_hand():
    # Sorted .01, .02, .03 times 3, 2, 1 is .03, .04, .03; a later one is never below an earlier one.
    assert holm(np.array([0.02, 0.01, 0.03])) == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([0.5, 0.6])) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=14), st.floats(0.001, 0.999))
def test_holm_rejects_what_its_steps_reject(p_values, level):
    rejected = set()
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(int(index))
    assert {int(i) for i in np.flatnonzero(holm(np.array(p_values)) <= level)} == rejected
