"""What is printed of one distillation."""

import dataclasses

import pytest

from pipelines.records import COLUMNS, ROLES
from pipelines.report import Report, RoleReport, show

MAP = {"teacher": 0.4, "student": 0.2, "distilled": 0.25}
OTHERS = [f"{name}@{n}" for name in ("recall", "ndcg", "hit_rate", "mrr") for n in (3, 5, 10, 20)]


def make_report(**changed):
    roles = {}
    for role in ROLES:
        metrics = {**dict.fromkeys([*COLUMNS, *OTHERS], 0.1), "map": MAP[role]}
        roles[role] = RoleReport(metrics, {"0": metrics}, "caser", 100, 2_794_102, 1234.5)
    baselines = {name: dict(roles["teacher"].metrics, map=0.01) for name in ("popularity", "successors")}
    return dataclasses.replace(Report("test", {"users": 13149}, [0, 1], roles, baselines), **changed)


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
