"""A model that ranks worse than it may is not published."""

import dataclasses
import math

import pytest

from rd_tf.serving.publishing import (
    REPORT_FILE,
    Measured,
    check_gate,
    find_reference,
    measured_run,
    measured_version,
    parse_min_metric_ratio,
    publishing,
)
from rd_tf.storage import InputError, write_json

TEACHER = Measured({"map": 0.1, "ndcg@10": 0.2}, "test", "a" * 64, "runs/teacher")
STUDENT = Measured({"map": 0.0975, "ndcg@10": 0.21}, "test", "a" * 64, "runs/student")


def make_run(directory, measured):
    model = {"class": "caser", "config": {}, "dtype_policy": "float32", "parameters": 1, "fingerprint": "f"}
    manifest = {"split": measured.split, "dataset": {"fingerprint": measured.dataset}, "model": model}
    write_json(directory / "manifest.json", manifest)
    write_json(directory / "metrics.json", {"split": measured.split, "metrics": measured.metrics})
    return dataclasses.replace(measured, source=str(directory))


def write_report(version, measured):
    quality = {"split": measured.split, "dataset": measured.dataset, "exported": measured.metrics}
    write_json(version / REPORT_FILE, {"quality": quality})


def test_ratios_are_read():
    assert parse_min_metric_ratio([]) == {}
    assert parse_min_metric_ratio(["map:0.98", " ndcg@10 : 1.02"]) == {"map": 0.98, "ndcg@10": 1.02}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["map"], "--min_metric_ratio=map: 'map' is not metric:ratio, such as map:0.98"),
        ([""], "'' is not metric:ratio"),
        (["map:1", "auc:0.9"], "--min_metric_ratio=map:1,auc:0.9: 'auc' is no metric; choose from map, precision@n, "),
        (["ndcg:0.9"], "'ndcg' is no metric"),
        (["ndcg@0:0.9"], "'ndcg@0' is no metric"),
        (["map@3:0.9"], "'map@3' is no metric"),
        (["map:high"], "the ratio 'high' of map is not a number"),
        (["map:"], "the ratio '' of map is not a number"),
        (["map:0"], "the ratio 0 of map is not a number above 0"),
        (["map:-1"], "the ratio -1 of map is not a number above 0"),
        (["map:nan"], "the ratio nan of map is not a number above 0"),
        (["map:inf"], "the ratio inf of map is not a number above 0"),
        (["map:1", "map:2"], "map stands twice"),
    ],
)
def test_bad_ratios_are_refused_by_message(values, message):
    with pytest.raises(InputError) as refused:
        parse_min_metric_ratio(values)
    assert message in str(refused.value)


def test_a_model_passes_at_the_bound_and_not_below_it():
    check_gate(STUDENT, TEACHER, {"map": 0.975, "ndcg@10": 1.05})
    check_gate(STUDENT, TEACHER, {})
    with pytest.raises(InputError) as refused:
        check_gate(STUDENT, TEACHER, {"ndcg@10": 1, "map": 0.98})
    assert str(refused.value) == (
        "--min_metric_ratio=ndcg@10:1,map:0.98: map of runs/student is 0.0975, 0.9750 times the 0.1 of runs/teacher; "
        "at least 0.98 times that, 0.098, is asked for, so nothing is published"
    )


@pytest.mark.parametrize(
    ("candidate", "reference", "message"),
    [
        ({"split": "validation"}, {}, "runs/student was measured on the split validation, but runs/teacher on test"),
        ({}, {"dataset": "b" * 64}, "measured on the dataset aaaaaaaaaaaaaaaa, but runs/teacher on bbbbbbbbbbbbbbbb"),
        ({}, {"metrics": {"mrr@3": 0.5}}, "--min_metric_ratio=map:0.9: runs/teacher has no map, only mrr@3"),
        ({"metrics": {"ndcg@10": 0.5}}, {}, "runs/student has no map, only ndcg@10"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidate, reference, message):
    with pytest.raises(InputError, match=message):
        check_gate(dataclasses.replace(STUDENT, **candidate), dataclasses.replace(TEACHER, **reference), {"map": 0.9})


def test_a_reference_of_zero_lets_everything_pass():
    check_gate(STUDENT, dataclasses.replace(TEACHER, metrics={"map": 0.0}), {"map": 0.9})


def test_a_run_is_what_its_files_say(tmp_path):
    expected = make_run(tmp_path / "teacher", TEACHER)
    assert measured_run(tmp_path / "teacher") == expected
    assert find_reference(str(tmp_path / "teacher"), tmp_path / "served") == expected
    with pytest.raises(InputError, match=r"--gate_against=.*nowhere is not a directory"):
        find_reference(str(tmp_path / "nowhere"), tmp_path)
    (tmp_path / "teacher" / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"metrics.json is missing"):
        measured_run(tmp_path / "teacher")


def test_a_run_of_the_trainer_can_be_read(tiny_teacher):
    measured = measured_run(tiny_teacher)
    assert measured.split == "test"
    assert {"map", "ndcg@3", "precision@5"} <= set(measured.metrics)
    check_gate(measured, measured, dict.fromkeys(measured.metrics, 1.0))


@pytest.mark.parametrize("gate_against", ["", "last"])
def test_the_last_version_is_the_reference(tmp_path, gate_against):
    assert find_reference(gate_against, tmp_path / "served") is None
    for measured in (TEACHER, STUDENT):
        with publishing(tmp_path / "served") as new:
            write_report(new.directory, measured)
    found = find_reference(gate_against, tmp_path / "served")
    assert found == dataclasses.replace(STUDENT, source=str(tmp_path / "served" / "2"))


def test_an_export_may_be_called_by_another_name(tmp_path):
    write_report(tmp_path, STUDENT)
    assert measured_version(tmp_path, "the export") == dataclasses.replace(STUDENT, source="the export")


def test_an_export_that_nobody_could_measure_passes_no_gate(tmp_path):
    write_json(tmp_path / REPORT_FILE, {"quality": None})
    with pytest.raises(InputError, match="was not measured, since nobody has a held-out item; leave --min_metric_r"):
        measured_version(tmp_path)


@pytest.mark.parametrize("quality", [3, [], {}, {"split": "test", "dataset": "a", "exported": 4}])
def test_a_damaged_report_is_refused(tmp_path, quality):
    write_json(tmp_path / REPORT_FILE, {"quality": quality})
    with pytest.raises(InputError, match=r"report.json is damaged or of another kind \(no usable 'quality"):
        measured_version(tmp_path)


def test_a_last_version_without_a_report_is_refused(tmp_path):
    (tmp_path / "7").mkdir()
    with pytest.raises(InputError, match=r"7/assets.extra/report.json is missing.*name a run by --gate_against"):
        find_reference("last", tmp_path)


@pytest.mark.parametrize("value", ["high", None, True, math.inf])
def test_a_metric_that_is_no_number_is_refused(tmp_path, value):
    make_run(tmp_path, dataclasses.replace(TEACHER, metrics={"map": 1.0 if value == math.inf else value}))
    if value == math.inf:
        (tmp_path / "metrics.json").write_text('{"split": "test", "metrics": {"map": Infinity}}')
    with pytest.raises(InputError, match=r"metrics.json is damaged \((map is |Infinity is no finite number)"):
        measured_run(tmp_path)
