"""When two runs had the same settings."""

import pytest

from rd_tf import plugins, run_directory
from rd_tf.command_line import default_flags
from rd_tf.train import flag_difference, train

FLAGS = default_flags(train)


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ({}, {}, None),
        ({"epochs": 9}, {}, ("epochs", 9, 15)),
        # JSON and absl write numbers as they like, but true is no number.
        ({"alpha": 1}, {"alpha": 1.0}, None),
        ({"exact_rank": 1, "teacher": "a"}, {"exact_rank": True, "teacher": "a"}, ("exact_rank", 1, True)),
        ({"cutoffs": ["3"]}, {"cutoffs": ["3", "5"]}, ("cutoffs", ["3"], ["3", "5"])),
        # No part of the result, or compared by fingerprints.
        ({"run_dir": "a", "dataset": "c", "block_size": 7, "steps_per_call": 1}, {}, None),
        ({"teacher": "a"}, {"teacher": "b"}, None),
        ({"teacher": "a"}, {}, ("teacher", "a", "")),
        # Of distillation, without a teacher.
        ({"alpha": 3.0, "k": 20}, {}, None),
        ({"alpha": 3.0, "teacher": "a"}, {"teacher": "a"}, ("alpha", 3.0, 1.0)),
        # Of Fossil, where the model is Caser, and the other way round.
        ({"history_exponent": 0.9}, {}, None),
        ({"history_exponent": 0.9, "model": "fossil"}, {"model": "fossil"}, ("history_exponent", 0.9, 0.2)),
        ({"vertical_filters": 9, "model": "fossil"}, {"model": "fossil"}, None),
    ],
)
def test_only_what_makes_another_result_is_a_difference(found, expected, difference):
    assert flag_difference({**FLAGS, **found}, {**FLAGS, **expected}) == difference


def test_a_flag_may_be_left_out():
    assert flag_difference({**FLAGS, "seed": 3}, FLAGS, but={"seed"}) is None
    assert flag_difference({**FLAGS, "teacher": "a", "alpha": 3.0}, FLAGS, but={"teacher"}) is None


def test_a_flag_of_no_older_run_was_its_default():
    distilled = {**FLAGS, "teacher": "a"}
    older = {name: value for name, value in distilled.items() if name != "exact_rank"}
    assert flag_difference(older, distilled) is None
    assert flag_difference(older, {**distilled, "exact_rank": True}) == ("exact_rank", False, True)


def test_an_older_run_had_no_warmup():
    older = {name: value for name, value in FLAGS.items() if name != "warmup_steps"}
    assert flag_difference(older, FLAGS) is None
    assert flag_difference(older, {**FLAGS, "warmup_steps": 9}) == ("warmup_steps", 0, 9)


def test_the_optimizer_of_an_older_run_was_adam():
    older = {name: value for name, value in FLAGS.items() if name != "optimizer"}
    assert flag_difference(older, {**FLAGS, "optimizer": "adam"}) is None
    assert flag_difference(older, {**FLAGS, "optimizer": "lazy_adam"}) == ("optimizer", "adam", "lazy_adam")


def test_a_flag_of_the_chosen_ranker_counts_though_a_loss_that_was_not_chosen_has_it_too(monkeypatch):
    monkeypatch.setitem(plugins.RANKERS, "soft", plugins.Plugin("a:A", {"softness": "softness"}))
    monkeypatch.setitem(plugins.DISTILLATION_LOSSES, "my_softmax", plugins.Plugin("b:B", {"softness": "softness"}))
    assert "softness" not in run_directory.flags_without_part({**FLAGS, "model": "soft"})
    assert "softness" in run_directory.flags_without_part(FLAGS)
