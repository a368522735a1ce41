"""The authors' metric values, reproduced through the ranks and metrics that evaluation uses."""

import json
from pathlib import Path

import numpy as np
import pytest

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Split, SplitData
from rd_tf.evaluation.evaluator import Evaluator

CASES = json.loads((Path(__file__).parents[1] / "conformance" / "metrics.json").read_text())["cases"]


@pytest.fixture(scope="module")
def per_user():
    scores = np.array([case["scores"] for case in CASES], np.float32)
    num_items = scores.shape[1]
    rows = [(user, item + 1, False) for user, case in enumerate(CASES) for item in case["excluded"]]
    rows += [(user, item + 1, True) for user, case in enumerate(CASES) for item in case["targets"]]
    # One more user has seen everything, so that every item is a candidate.
    rows += [(len(CASES), item, False) for item in range(1, num_items + 1)]
    users, items, held_out = (np.array(column) for column in zip(*sorted(rows), strict=True))
    interactions = Interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        np.arange(len(rows), dtype=np.int64),
        [str(user) for user in range(len(CASES) + 1)],
        [str(item) for item in range(num_items)],
    )
    evaluator = Evaluator(SplitData(interactions, Split("test", ~held_out, held_out)), 5, [3, 5, 10], block_size=5)
    # Item 0 is an ordinary item in the authors' vectors; here column 0 is the padding.
    padded = np.concatenate([np.full((len(CASES), 1), 99, np.float32), scores], axis=1)
    evaluation = evaluator.evaluate_scores(lambda users, sequences: padded[users])
    assert evaluation.counts["repeated_targets"] == evaluation.counts["unknown_targets"] == 0
    return evaluation.per_user.set_index("user")


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_authors_values_come_out(per_user, number):
    expected = {name: value for name, value in CASES[number].items() if name in per_user.columns}
    assert len(expected) == 10
    for name, value in expected.items():
        assert per_user.loc[number, name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
