"""The child that runs the authors' code, with stand-ins for the child and for the code."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reference import reference_process
from rd_tf.storage import InputError

# What the child calls of the authors' modules, with nothing behind it.
STAND_INS = {
    "interactions": """
class SequenceInteractions:
    def __init__(self, user_ids, sequences, targets=None):
        self.user_ids, self.sequences, self.targets = user_ids, sequences, targets
        self.L, self.T = sequences.shape[1], None if targets is None else targets.shape[1]
""",
    "train_caser": """
import time
def _save_checkpoint(state, filename):
    raise AssertionError("saved")
class Recommender:
    def __init__(self, **settings):
        self.settings = settings
    def _initialize(self, train):
        self.test_sequence = train.test_sequences
    def fit(self, train, test, verbose):
        print("something")
        assert train.tocsr().shape == (2, 6) and train.num_users == 9
        self._generate_negative_samples(train.sequences.user_ids, train, n=3)
        time.sleep(0.01)
        _save_checkpoint(None, None)
    def _generate_negative_samples(self, users, interactions, n):
        time.sleep(0.02)
""",
    "distill_caser": """
import numpy as np
import train_caser
class DistilledRecommender(train_caser.Recommender):
    def fit(self, train, test, verbose):
        assert np.load(self.settings["teacher_topk_path"]).shape == (3, 2)
        assert self.settings["dynamic_start_epoch"] == 0
        train_caser.Recommender._generate_negative_samples(self, None, train, 3)
        self._generate_negative_samples(None, train, n=3)
    def _initialize_teacher(self, train):
        pass
    def _get_teacher_topk(self, sequences, users, targets, k):
        assert users.shape == (3, 1) and self.T == 1
        if k == 13:
            raise RuntimeError("unlucky")
""",
    "evaluation": """
def evaluate_ranking(model, test, train, k):
    assert test.tocsr().shape == train.tocsr().shape == (2, 6)
    assert model.test_sequence.sequences.shape == (2, 5)
""",
}
SIZES = {"num_users": 9, "num_item_rows": 6, "dim": 4}
TRAINING = {**SIZES, "batch_size": 2, "negatives": 3, "learning_rate": 1e-3, "l2": 1e-6}
WINDOWS = {
    "users": np.array([0, 0, 1]),
    "sequences": np.ones((3, 5), np.int32),
    "targets": np.ones((3, 1), np.int32),
    "seen": np.array([1, 2, 3], np.int32),
    "seen_offsets": np.array([0, 2, 3]),
    "lists": np.ones((3, 2), np.int32),
}


@pytest.fixture
def checkout(tmp_path):
    for name, text in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(text)
    return str(tmp_path)


def test_the_child_times_every_kind_and_takes_sampling_apart(checkout):
    with reference_process(checkout, "") as authors:
        authors.make("training", WINDOWS, **TRAINING)
        for _ in range(2):
            answer = authors.run()
            assert 0.02 <= answer["sampling"] < answer["seconds"] - 0.01
        distillation = {"k": 2, "rank_samples": 4, "with_discrepancy": True}
        authors.make("distillation", WINDOWS, **TRAINING, **distillation)
        assert 0 < authors.run()["sampling"] < authors.run()["seconds"]
        authors.make("top_k", WINDOWS, **SIZES, k=2)
        assert authors.run()["seconds"] >= 0
        users = {"sequences": WINDOWS["sequences"][:2], "seen": WINDOWS["seen"], "seen_offsets": [0, 2, 3]}
        authors.make("evaluation", {**users, "targets": [4, 5], "target_offsets": [0, 1, 2]}, **SIZES, cutoffs=[3])
        assert authors.run()["seconds"] >= 0


def test_an_error_in_the_authors_code_is_one_sentence(checkout):
    with reference_process(checkout, "") as authors:
        authors.make("top_k", WINDOWS, **SIZES, k=13)
        with pytest.raises(InputError, match=r"cannot be measured \(RuntimeError: unlucky\); check --reference"):
            authors.run()


def test_a_missing_module_is_one_sentence(checkout):
    (Path(checkout) / "distill_caser.py").write_text("import no_such_torch")
    with (
        pytest.raises(InputError, match="ModuleNotFoundError: No module named 'no_such_torch'"),
        reference_process(checkout, sys.executable),
    ):
        pass


def test_a_child_that_ends_without_an_answer_is_one_sentence(checkout, tmp_path):
    script = tmp_path / "silent.py"
    script.write_text("raise SystemExit(7)")
    with pytest.raises(InputError, match="it ended with exit code 7"), reference_process(checkout, "", script):
        pass


def test_what_is_no_checkout_or_no_python_is_refused(checkout, tmp_path):
    with pytest.raises(InputError, match="holds no train_caser"), reference_process(str(tmp_path / "none"), ""):
        pass
    with pytest.raises(InputError, match="is no program that runs"), reference_process(checkout, "/no/python"):
        pass


def test_without_a_checkout_there_is_nobody_to_ask():
    with reference_process("", "") as authors:
        assert authors is None
