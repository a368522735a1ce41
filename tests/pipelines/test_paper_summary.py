"""The numbers behind the tables, from invented runs."""

import numpy as np
import pandas as pd
import pytest

from pipelines.paper.chains import Cell
from pipelines.paper.tables import summarise
from pipelines.records import COLUMNS
from rd_tf.evaluation.metrics import holm
from rd_tf.storage import InputError, read_json, remove, write_json

CASER, FOSSIL = Cell("gowalla", "caser"), Cell("gowalla", "fossil")


@pytest.fixture(scope="module")
def results(make_cell, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    make_cell(results / "gowalla" / "caser", [0, 1, 2])
    make_cell(results / "small" / "other", [4])
    return results


@pytest.fixture(scope="module")
def summary(results):
    return summarise(results, [FOSSIL, CASER])


def test_asked_cells_come_first_then_what_else_is_there(summary):
    assert list(summary["cells"]) == ["gowalla/fossil", "gowalla/caser", "small/other"]
    assert summary["cells"]["gowalla/fossil"] is None
    assert summary["split"] == "test"


def test_means_and_deviations_are_over_seeds(summary, results):
    maps = [
        read_json(results / "gowalla" / "caser" / f"seed-{seed}" / "student" / "metrics.json")["metrics"]["map"]
        for seed in (0, 1, 2)
    ]
    found = summary["cells"]["gowalla/caser"]["roles"]["student"]["metrics"]["map"]
    assert found["mean"] == pytest.approx(np.mean(maps))
    assert found["std"] == pytest.approx(np.std(maps, ddof=1))
    assert list(found["by_seed"]) == ["0", "1", "2"]


def test_one_seed_has_no_deviation_and_no_test_over_seeds(summary):
    cell = summary["cells"]["small/other"]
    assert cell["roles"]["teacher"]["metrics"]["map"]["std"] is None
    test = cell["comparisons"]["student"]["map"]
    assert (test["seeds_n"], test["seeds_t_p"]) == (1, None)
    assert test["t_holm"] < 0.01


def test_users_values_are_averaged_over_seeds_before_the_test(summary, results):
    directory = results / "gowalla" / "caser"
    mean = {
        role: np.mean([pd.read_parquet(directory / f"seed-{s}" / role / "per_user.parquet")["ap"] for s in range(3)], 0)
        for role in ("distilled", "teacher")
    }
    test = summary["cells"]["gowalla/caser"]["comparisons"]["teacher"]["map"]
    difference = mean["distilled"] - mean["teacher"]
    assert test["n"] == 40
    assert test["percent"] == pytest.approx(100 * difference.mean() / mean["teacher"].mean(), rel=1e-4)
    assert test["percent_low"] < test["percent"] < test["percent_high"] < 0


@pytest.mark.parametrize("kind", ["t", "wilcoxon"])
def test_p_values_are_corrected_over_the_cell(summary, kind):
    tests = [test[column] for test in summary["cells"]["gowalla/caser"]["comparisons"].values() for column in COLUMNS]
    assert len(tests) == 14
    assert [test[f"{kind}_holm"] for test in tests] == pytest.approx(holm([test[f"{kind}_p"] for test in tests]))


def test_a_seed_without_one_role_does_not_count(make_cell, tmp_path):
    make_cell(tmp_path / "gowalla" / "caser", [0, 1])
    remove(tmp_path / "gowalla" / "caser" / "seed-0" / "student")
    assert summarise(tmp_path, [])["cells"]["gowalla/caser"]["seeds"] == [1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"alpha": 2.0},
            r"seed-1/\w+ was trained with --alpha=2.0, but .*seed-0/\w+ with --alpha=1.0; keep runs of one",
        ),
        ({"split": "validation"}, r"seed-1/\w+ has the split validation, but .* has test; keep one split only"),
    ],
)
def test_seeds_of_different_settings_are_refused(make_cell, tmp_path, changed, message):
    make_cell(tmp_path / "gowalla" / "caser", [0])
    make_cell(tmp_path / "gowalla" / "caser", [1], **changed)
    with pytest.raises(InputError, match=message):
        summarise(tmp_path, [CASER])


def test_flags_of_other_models_may_differ(make_cell, tmp_path):
    make_cell(tmp_path / "gowalla" / "caser", [0])
    make_cell(tmp_path / "gowalla" / "caser", [1], history_exponent=0.7)
    assert summarise(tmp_path, [CASER])["cells"]["gowalla/caser"]["seeds"] == [0, 1]


def test_students_of_different_settings_are_refused(make_cell, tmp_path):
    make_cell(tmp_path / "gowalla" / "caser", [0], stages={"student": {"batch_size": 64}})
    with pytest.raises(
        InputError, match=r"distilled was trained with --batch_size=512, but .*student with --batch_size=64"
    ):
        summarise(tmp_path, [CASER])


def test_the_distilled_student_may_have_epochs_of_its_own(make_cell, tmp_path):
    make_cell(tmp_path / "gowalla" / "caser", [0], stages={"distilled": {"epochs": 15}})
    assert summarise(tmp_path, [CASER])["cells"]["gowalla/caser"]["seeds"] == [0]


def test_a_student_of_another_teacher_is_refused(make_cell, tmp_path):
    directory = tmp_path / "gowalla" / "caser"
    make_cell(directory, [0, 1])
    remove(directory / "seed-0" / "teacher")
    (directory / "seed-1" / "teacher").rename(directory / "seed-0" / "teacher")
    with pytest.raises(
        InputError, match=r"seed-0/distilled was distilled from the teacher teacher 0, but .* is teacher 1"
    ):
        summarise(tmp_path, [CASER])


def test_efficiency_of_other_models_is_not_shown(make_cell, efficiency, tmp_path):
    directory = tmp_path / "gowalla" / "caser"
    make_cell(directory, [0])
    write_json(directory / "efficiency.json", efficiency)
    assert summarise(tmp_path, [CASER])["cells"]["gowalla/caser"]["efficiency"] == efficiency
    other = {**efficiency["roles"]["distilled"], "fingerprint": "another"}
    efficiency = {**efficiency, "roles": {**efficiency["roles"], "distilled": other}}
    write_json(directory / "efficiency.json", efficiency)
    assert summarise(tmp_path, [CASER])["cells"]["gowalla/caser"]["efficiency"] is None


def test_cells_of_different_splits_are_refused(make_cell, tmp_path):
    make_cell(tmp_path / "gowalla" / "caser", [0])
    make_cell(tmp_path / "gowalla" / "fossil", [0], split="validation")
    with pytest.raises(InputError, match="mixes splits"):
        summarise(tmp_path, [CASER, FOSSIL])


def test_different_users_are_refused(make_cell, tmp_path):
    make_cell(tmp_path / "gowalla" / "caser", [0])
    path = tmp_path / "gowalla" / "caser" / "seed-0" / "student" / "per_user.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(InputError, match="were evaluated on different users"):
        summarise(tmp_path, [CASER])


def test_nothing_is_no_mistake(tmp_path):
    assert summarise(tmp_path / "none", [CASER]) == {"split": None, "cells": {"gowalla/caser": None}}
