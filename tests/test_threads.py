"""How cores are shared: decided before TensorFlow starts, and only then."""

import pytest
import tensorflow as tf

from rd_tf import runtime


@pytest.mark.parametrize(
    ("cores", "asked", "expected", "blocks"),
    [(2, 0, 1, 2), (4, 0, 1, 4), (16, 0, 0, 1), (16, 1, 1, 4), (16, 8, 8, 2), (2, 8, 8, 1)],
)
def test_operations_and_blocks_together_fill_the_cores(monkeypatch, cores, asked, expected, blocks):
    chosen = []
    monkeypatch.setattr(runtime, "_cores", lambda: cores)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", chosen.append)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: chosen[-1])
    runtime.share_cores(asked)
    assert chosen == [expected]
    assert runtime.blocks_at_once() == blocks


def test_once_tensorflow_has_started_nothing_changes():
    tf.zeros(1).numpy()
    before = tf.config.threading.get_intra_op_parallelism_threads()
    runtime.share_cores(before + 1)
    assert tf.config.threading.get_intra_op_parallelism_threads() == before
