"""Scores with frozen weights against the model's own."""

import numpy as np

from rd_tf.evaluation.frozen_scores import FrozenScores, block_rows
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
