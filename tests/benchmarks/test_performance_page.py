"""The pages in docs/ show what results/ holds."""

import json

import pytest

from benchmarks.optimizers_table import optimizers_table
from benchmarks.performance_page import (
    NAMES,
    PAGE,
    RESULTS,
    SERVING_PAGE,
    TEACH_PAGE,
    fill,
    fill_serving,
    fill_teach,
)
from rd_tf.storage import InputError

MACHINE = {
    "benchmark": "machine",
    "processor": "EPYC",
    "cores": 2,
    "tensorflow": "2.21.0",
    "date": "2026-01-02",
    "git_revision": "0123456789",
    "peak_gflops": 151.2,
    "bandwidth_gb": 20.4,
}
MARKERS = "".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in (*NAMES, "optimizers"))


def test_the_page_shows_what_results_hold():
    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, RESULTS) == page, "run python -m benchmarks.performance_page"
    assert all((RESULTS / "benchmarks" / f"{name}.jsonl").is_file() for name in NAMES)


def test_the_page_on_serving_shows_what_results_hold():
    page = SERVING_PAGE.read_text(encoding="utf-8")
    assert fill_serving(page, RESULTS) == page, "run python -m benchmarks.performance_page"


def test_the_page_on_the_teachers_lists_shows_what_results_hold():
    page = TEACH_PAGE.read_text(encoding="utf-8")
    assert "| 10,000,000 beam |" in page
    assert fill_teach(page, RESULTS) == page, "run python -m benchmarks.performance_page"


def test_a_file_becomes_a_table_with_its_machine(tmp_path):
    case = {"benchmark": "top_k", "case": "k=10", "median": 0.0536, "unit": "s/1,000 windows", "ratio": 118.2}
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "top_k.jsonl").write_text(json.dumps(MACHINE) + "\n" + json.dumps(case) + "\n")
    page = fill(MARKERS, tmp_path)
    assert "| case | median | unit | ratio |\n|---|---|---|---|\n| k=10 | 0.0536 | s/1,000 windows | 118.2 |" in page
    assert "2026-01-02, 2 cores of EPYC, 151 GFLOP/s, 20 GB/s, TensorFlow 2.21.0, revision 0123456789." in page
    assert fill(page, tmp_path) == page


def test_a_page_without_markers_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"docs/performance.md lacks the markers <!-- optimizers: begin -->"):
        fill("nothing", tmp_path)


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
