"""Scores with frozen weights against the model's own."""

import numpy as np
import tensorflow as tf

from rd_tf.evaluation.ranks import FrozenScores, block_rows
from rd_tf.models.caser import Caser

USERS = np.array([0, 4, 1], "int32")
SEQUENCES = np.array([[1, 2, 3], [0, 0, 9], [4, 4, 5]], "int32")


def test_they_are_the_models_until_its_weights_change_and_again_when_frozen_anew():
    model = Caser(5, 12, 3, 4)
    model.item_bias.assign(np.linspace(-1, 1, 13))
    frozen = FrozenScores(model)
    scores = frozen.freeze()
    before = np.asarray(model.score_all(model.encode(USERS, SEQUENCES)))
    np.testing.assert_allclose(scores(USERS, SEQUENCES), before, atol=1e-5)
    assert (scores(USERS, SEQUENCES)[:, 0] == -np.inf).all()
    model.item_table.assign(model.item_table * 3.0)
    np.testing.assert_allclose(scores(USERS, SEQUENCES), before, atol=1e-5)
    after = np.asarray(model.score_all(model.encode(USERS, SEQUENCES)))
    assert np.abs(after - before)[:, 1:].max() > 1e-3
    np.testing.assert_allclose(frozen.freeze()(USERS, SEQUENCES), after, atol=1e-5)


def test_a_block_has_at_least_one_row_and_at_most_128_mib():
    assert block_rows(1024, 14011) == 1024
    assert block_rows(1024, 1_000_001) == 33
    assert block_rows(1024, 10**9) == 1


def test_many_rankers_bring_no_warning(caplog, monkeypatch):
    """TensorFlow warns of a function that is made anew and called five times; a ranker's own graph is no mistake."""
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    for seed in range(9):
        model = Caser(3, 15, sequence_length=3, dim=4, seed=seed)
        FrozenScores(model).freeze()(np.zeros(2, np.int32), np.zeros((2, 3), np.int32))
    assert "retracing" not in caplog.text
