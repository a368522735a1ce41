"""Repeats, JSON lines and tables, and that the pages in docs/ show what results/ holds."""

import json

import pytest

from benchmarks.report import (
    PAGES,
    RESULTS,
    Machine,
    Measurement,
    Report,
    Work,
    check_cases,
    check_output,
    fill,
    optimizers_table,
    take_pairs,
    whole_numbers,
)
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
    assert len({len(row) for row in rows}) == 1


def test_an_unknown_case_is_refused_and_none_means_all():
    assert check_cases([], ["a", "b"]) == ["a", "b"]
    assert check_cases(["b", "a"], ["a", "b"]) == ["a", "b"]
    with pytest.raises(InputError, match="--cases=c is no case of this benchmark; choose from a,b"):
        check_cases(["c"], ["a", "b"])


def test_an_output_that_is_a_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a directory; name a file"):
        check_output(str(tmp_path))


def test_whole_numbers_are_read_or_refused():
    assert whole_numbers("sizes", ["2000", "300"], 200) == [2000, 300]
    for texts, message in (([], "--sizes is empty"), (["many"], "--sizes=many is no whole"), (["10"], "from 200")):
        with pytest.raises(InputError, match=message):
            whole_numbers("sizes", texts, 200)


MACHINE_RECORD = {
    "benchmark": "machine",
    "processor": "EPYC",
    "cores": 2,
    "tensorflow": "2.21.0",
    "date": "2026-01-02",
    "git_revision": "0123456789",
    "peak_gflops": 151.2,
    "bandwidth_gb": 20.4,
}
PAGE = "docs/performance.md"
MARKERS = "".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in (*PAGES[PAGE], "optimizers"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_results_hold(page):
    text = (RESULTS.parent / page).read_text(encoding="utf-8")
    assert fill(page, text, RESULTS) == text, "run python -m benchmarks.report"
    assert all((RESULTS / "benchmarks" / f"{name}.jsonl").is_file() for name in PAGES[page])


def test_a_file_becomes_a_table_with_its_machine(tmp_path):
    case = {"benchmark": "top_k", "case": "k=10", "median": 0.0536, "unit": "s/1,000 windows", "ratio": 118.2}
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "top_k.jsonl").write_text(json.dumps(MACHINE_RECORD) + "\n" + json.dumps(case) + "\n")
    page = fill(PAGE, MARKERS, tmp_path)
    assert "| case | median | unit | ratio |\n|---|---|---|---|\n| k=10 | 0.0536 | s/1,000 windows | 118.2 |" in page
    assert "2026-01-02, 2 cores of EPYC, 151 GFLOP/s, 20 GB/s, TensorFlow 2.21.0, revision 0123456789." in page
    assert fill(PAGE, page, tmp_path) == page


def test_a_page_without_markers_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"docs/performance.md lacks the markers <!-- optimizers: begin -->"):
        fill(PAGE, "nothing", tmp_path)


def test_runs_that_are_there_with_both_optimizers_stand_side_by_side(tmp_path):
    for folder, seed, value in [
        ("validation-adam", 0, 0.08),
        ("validation-lazy_adam", 0, 0.084),
        ("validation-adam", 10, 0.08),
        ("validation-lazy_adam", 10, 0.082),
        ("validation-adam", 2, 0.08),
        ("validation-lazy_adam", 2, 0.08),
        ("validation-adam", 3, 0.01),
        ("caser-adam", 0, 0.1),
        ("caser", 0, 0.1),
    ]:
        path = tmp_path / folder / f"seed-{seed}" / "student" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"split": folder.split("-")[0], "metrics": {"map": value}}))
    lines = optimizers_table(tmp_path).splitlines()
    assert lines[3:] == [
        "| student alone | validation | 0 | 0.0800 | 0.0840 | +5.0 % |",
        "| student alone | validation | 2 | 0.0800 | 0.0800 | +0.0 % |",
        "| student alone | validation | 10 | 0.0800 | 0.0820 | +2.5 % |",
        "| **student alone** | validation | mean | 0.0800 | 0.0820 | +2.5 % |",
        "| student alone | caser | 0 | 0.1000 | 0.1000 | +0.0 % |",
    ]
