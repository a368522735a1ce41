"""The README's table, and the longer ones of docs/reproduction.md, are what results/ holds."""

import pytest

from pipelines.paper.output import PAGE, README, RESULTS, fill_readme
from pipelines.paper.tables import readme_table, report_tables
from rd_tf.storage import InputError, read_json


def test_the_readme_shows_what_results_hold():
    readme = README.read_text(encoding="utf-8")
    assert fill_readme(readme, RESULTS) == readme, "run python -m pipelines.paper.output"


def test_the_readme_has_a_row_for_every_model_and_dataset():
    rows = [line.split(" | ") for line in readme_table(RESULTS).splitlines()[2:]]
    quickstart = next(row for row in rows if "make quickstart" in row[0])
    report = read_json(RESULTS / "quickstart" / "report.json")
    maps = [f"{report['roles'][role]['metrics']['map']:.4f}"[1:] for role in ("teacher", "student", "distilled")]
    assert quickstart[3:6] == maps
    assert len(quickstart) == 11
    cells = [name for name, cell in read_json(RESULTS / "paper" / "summary.json")["cells"].items() if cell]
    best = [row[0] for row in rows[: len(rows) - len(cells)]]
    assert best[0] == "| Gowalla, Caser"
    assert not any("paper's settings" in title for title in best)
    assert all("paper's settings" in row[0] for row in rows[len(best) :])
    assert report_tables(RESULTS).count("| distilled against alone |") > len(best)


def test_the_best_students_are_above_each_of_their_teachers():
    for dataset in ("gowalla", "foursquare"):
        report = read_json(RESULTS / dataset / "best" / "report.json")
        assert len(report["seeds"]) == 3
        for name, against in report["teachers"].items():
            assert against["above"] >= 5, name
            assert f"| teacher {name} |" in PAGE.read_text(encoding="utf-8")


def test_every_published_number_has_its_run_beside_it():
    # Three roles of a cell, and only of those whose data are the paper's.
    assert PAGE.read_text(encoding="utf-8").count("| *published* |") == 6


def test_results_that_are_not_there_are_no_rows(tmp_path):
    assert len(readme_table(tmp_path).splitlines()) == 2
    assert report_tables(tmp_path) == ""


def test_a_readme_without_markers_is_refused():
    with pytest.raises(InputError, match="lacks the markers"):
        fill_readme("nothing", RESULTS)
