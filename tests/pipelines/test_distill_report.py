"""What is printed of one distillation."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pipelines.records import COLUMNS, ROLES
from pipelines.report import Report, RoleReport, as_json, collect, findings, show
from rd_tf.evaluation.metrics import PairedComparison, compare_paired
from rd_tf.storage import InputError

GAIN = PairedComparison(13149, 0.05, 25.0, 20.0, 30.0, 0.0001, 0.02)
MAP = {"teacher": 0.4, "student": 0.2, "distilled": 0.25}
OTHERS = [f"{name}@{n}" for name in ("recall", "ndcg", "hit_rate", "mrr") for n in (3, 5, 10, 20)]


COUNTS = {
    "users": 13149,
    "users_without_targets": 0,
    "targets": 102_294,
    "unknown_targets": 40,
    "repeated_targets": 0,
}


def make_report(**changed):
    roles = {}
    for role in ROLES:
        metrics = {**dict.fromkeys([*COLUMNS, *OTHERS], 0.1), "map": MAP[role]}
        roles[role] = RoleReport(metrics, {"0": metrics}, "caser", 100, 2_794_102, 1234.5)
    baselines = {name: dict(roles["teacher"].metrics, map=0.01) for name in ("popularity", "successors")}
    return dataclasses.replace(Report("test", COUNTS, [0, 1], roles, GAIN, baselines), **changed)


def lines_of(capsys, *arguments, **keywords):
    show(*arguments, **keywords)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    return [line.strip() for line in lines if line.strip()]


def test_the_table_has_the_papers_metrics_and_those_who_learn_nothing_first(capsys):
    lines = lines_of(capsys, make_report())
    assert lines[0] == "test split, mean of seeds 0, 1"
    assert lines[1].split() == ["P@3", "P@5", "P@10", "N@3", "N@5", "N@10", "MAP"]
    titles = [line[:23].strip() for line in lines[3:9]]
    assert titles == [
        "most popular",
        "last item's successors",
        "teacher",
        "student alone",
        "student distilled",
        "distilled vs alone",
    ]
    assert lines[7].split()[-7:] == [*[".1000"] * 6, ".2500"]
    assert lines[8].endswith("+25.0 %")
    assert "--all_metrics shows 16 others." in lines
    assert not [line for line in lines if line.startswith("recall")]


def test_all_metrics_are_printed_when_asked_for(capsys):
    lines = lines_of(capsys, make_report(), all_metrics=True)
    assert [line.split()[0] for line in lines if line.split()[0] in OTHERS] == OTHERS
    assert not [line for line in lines if "--all_metrics" in line]


@pytest.mark.parametrize(
    ("alone", "gain"),
    [(0.24, "+4.2 %"), (0.1, "+150 %"), (0.02, "x 12"), (1e-7, "x 2.5e+06"), (0.5, "-50.0 %"), (0, "")],
)
def test_gains_of_any_size_fit_into_a_line(capsys, alone, gain):
    roles = make_report().roles
    metrics = {**roles["student"].metrics, "map": alone}
    roles = {**roles, "student": dataclasses.replace(roles["student"], metrics=metrics)}
    gains = next(line for line in lines_of(capsys, make_report(roles=roles)) if line.startswith("distilled vs"))
    assert gains.endswith(gain)
    assert "…" not in gains


def test_metrics_that_not_all_models_have_are_left_out(capsys):
    roles = {
        role: dataclasses.replace(found, metrics={"map": MAP[role], "recall@7": 0.5})
        for role, found in make_report().roles.items()
    }
    lines = lines_of(capsys, make_report(roles=roles))
    assert lines[1].split() == ["MAP"]


def test_a_report_without_those_who_learn_nothing_begins_with_the_teacher(capsys):
    lines = lines_of(capsys, make_report(baselines={}))
    assert lines[3].startswith("teacher ")


@pytest.mark.parametrize("seeds", [[3]])
def test_one_seed_is_named(capsys, seeds):
    assert lines_of(capsys, make_report(seeds=seeds))[0] == "test split, seed 3"


def with_maps(report, **maps):
    roles = {
        role: dataclasses.replace(found, metrics={**found.metrics, "map": maps.get(role, found.metrics["map"])})
        for role, found in report.roles.items()
    }
    return dataclasses.replace(report, roles=roles)


def test_a_gain_is_told_with_its_interval_and_p_values():
    assert findings(make_report()) == [
        "MAP of the student, distilled against alone: .2500 against .2000, +25.0 % (95 % interval +20.0 % to +30.0 %); "
        "over 13,149 users, paired t-test p < .001, Wilcoxon p = .020."
    ]


def test_of_one_seed_it_is_said_that_others_may_differ():
    assert findings(make_report(seeds=[0]))[1] == "Whether other seeds gain as much, --seeds=0,1,2 tells."


@pytest.mark.parametrize(("p", "is_noise"), [(0.049, False), (0.05, True), (0.9, True), (float("nan"), True)])
def test_a_difference_that_may_be_chance_is_called_noise(p, is_noise):
    text = " ".join(findings(make_report(comparison=dataclasses.replace(GAIN, t_p=p))))
    assert ("This difference is noise" in text) == is_noise
    assert ("--seeds=0,1,2" in text) == is_noise
    assert ("too little to test" in text) == (p != p)


def test_a_significant_loss_is_no_noise():
    text = " ".join(findings(make_report(comparison=dataclasses.replace(GAIN, difference=-0.1, percent=-5.0))))
    assert "Distillation makes this student worse. Try a smaller --alpha" in text
    assert "noise" not in text


def test_a_teacher_that_ranks_worse_than_the_student_is_told_with_what_to_do():
    text = " ".join(findings(with_maps(make_report(), teacher=0.19)))
    assert "The teacher ranks worse than the student alone (MAP .1900 against .2000)" in text
    assert "--teacher_epochs" in text
    assert "The teacher ranks worse" not in " ".join(findings(make_report()))


def test_a_student_that_counting_beats_is_told():
    baselines = {"popularity": {"map": 0.01}, "successors": {"map": 0.3}}
    text = " ".join(findings(make_report(baselines=baselines)))
    assert (
        "Ranking by what follows the last item, which takes no training, is better than the student distilled" in text
    )
    assert "popularity" not in text


def test_sentences_stand_below_the_table_in_its_width(capsys):
    lines = lines_of(capsys, with_maps(make_report(), teacher=0.1))
    begins = [place for place, line in enumerate(lines) if line.startswith(("MAP of the student", "The teacher ranks"))]
    assert len(begins) == 2
    assert min(begins) > max(place for place, line in enumerate(lines) if line.startswith("student distilled"))


@pytest.fixture
def runs(make_run, tmp_path):
    return {seed: {role: make_run(tmp_path / str(seed) / role, role, seed) for role in ROLES} for seed in (0, 1)}


def test_students_are_compared_user_by_user_over_the_means_of_the_seeds(runs):
    report = collect(runs)
    values = {
        role: np.mean([pd.read_parquet(paths[role] / "per_user.parquet")["ap"] for paths in runs.values()], axis=0)
        for role in ROLES
    }
    assert report.comparison == compare_paired(values["distilled"], values["student"])
    assert report.comparison.n == 40
    assert report.comparison.t_p < 0.001


def test_students_of_different_users_are_refused(runs):
    path = runs[1]["distilled"] / "per_user.parquet"
    pd.read_parquet(path).iloc[:-1].to_parquet(path, index=False)
    with pytest.raises(InputError, match=r"0/student and .*1/distilled were evaluated on different users"):
        collect(runs)


def test_what_could_not_be_computed_is_null_in_the_report():
    values = as_json(make_report(comparison=dataclasses.replace(GAIN, t_p=float("nan"))))
    assert values["comparison"]["t_p"] is None
    assert values["comparison"]["n"] == 13149
