"""Repeats, JSON lines and the table."""

import json

import pytest

from benchmarks.floors import Work
from benchmarks.harness import Machine, Measurement, Report, check_cases, check_output, take_pairs
from rd_tf.storage import InputError

MACHINE = Machine("some CPU", 2, "2.0", "2020-01-01", None, peak_gflops=100.0, bandwidth_gb=10.0)


def test_a_record_holds_all_repeats_the_floor_and_the_ratios_pair_by_pair():
    floor = Work(1e8, 1e7)
    measurement = Measurement("some", "ms/step", [0.01, 0.02, 0.04], floor, [0.03, 0.02, 0.2], extra={"steps": 7})
    assert measurement.record("train_step", MACHINE) == {
        "benchmark": "train_step",
        "case": "some",
        "unit": "ms/step",
        "median": 20.0,
        "min": 10.0,
        "max": 40.0,
        "repeats": [10.0, 20.0, 40.0],
        "floor": 1.0,
        "floor_flops": 100_000_000,
        "floor_bytes": 10_000_000,
        "share_of_floor": 0.05,
        "reference_median": 30.0,
        "ratio": 3.0,
        "ratios": [3.0, 1.0, 5.0],
        "steps": 7,
    }


def test_without_floor_and_reference_their_values_are_left_out():
    record = Measurement("some", "s", [1.0]).record("any", MACHINE)
    assert set(record) == {"benchmark", "case", "unit", "median", "min", "max", "repeats"}


def test_pairs_are_taken_in_turn_after_a_warm_up():
    calls = []

    def call(name):
        calls.append(name)
        return len(calls)

    ours, theirs = take_pairs(lambda: call("ours"), lambda: call("theirs"), 2)
    assert calls == ["ours", "theirs"] * 3
    assert (ours, theirs) == ([3, 5], [4, 6])
    assert take_pairs(lambda: 1.0, None, 2) == ([1.0, 1.0], [])


def test_a_report_prints_json_lines_then_an_aligned_table_and_writes_the_lines(capsys, tmp_path):
    report = Report("some", MACHINE, str(tmp_path / "lines.json"))
    report.add(Measurement("a", "s", [1.5, 2.5], Work(1e11, 0)))
    report.add(Measurement("longer", "ms", [1.25]))
    report.finish()
    lines, table = capsys.readouterr().out.split("\n\n")
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["benchmark"] for record in records] == ["machine", "some", "some"]
    assert records[0]["peak_gflops"] == 100.0
    assert (tmp_path / "lines.json").read_text() == lines + "\n"
    rows = table.splitlines()
    assert [row.split() for row in rows] == [
        ["case", "median", "min", "max", "unit", "floor", "share", "of", "floor"],
        ["a", "2", "1.5", "2.5", "s", "1", "0.5"],
        ["longer", "1,250", "1,250", "1,250", "ms"],
    ]
    assert rows[0].index("median") + len("median") == rows[1].index("2") + 1


def test_an_unknown_case_is_refused_and_none_means_all():
    assert check_cases([], ["a", "b"]) == ["a", "b"]
    assert check_cases(["b", "a"], ["a", "b"]) == ["a", "b"]
    with pytest.raises(InputError, match="--cases=c is no case of this benchmark; choose from a,b"):
        check_cases(["c"], ["a", "b"])


def test_an_output_that_is_a_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a directory; name a file"):
        check_output(str(tmp_path))
