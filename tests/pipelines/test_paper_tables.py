"""What the tables and plots show."""

import pytest

from pipelines.paper.chains import Cell
from pipelines.paper.output import PAGE, RESULTS, fill_reproduction, write_output
from pipelines.paper.tables import latex_tables, markdown_tables, readme_table, summarise
from pipelines.records import keep_evidence
from rd_tf.storage import read_json, write_json

CELLS = [Cell("gowalla", "fossil"), Cell("gowalla", "caser"), Cell("foursquare", "caser")]
PARTS = ("tables", "reports", "plots", "tuning")
MARKERS = "".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in PARTS)


@pytest.fixture(scope="module")
def results(make_cell, make_run, efficiency, tmp_path_factory):
    results, runs = tmp_path_factory.mktemp("results") / "paper", tmp_path_factory.mktemp("sweep_runs")
    make_cell(results / "gowalla" / "caser", [0, 1, 2])
    make_cell(results / "foursquare" / "caser", [0])
    write_json(results / "gowalla" / "caser" / "efficiency.json", efficiency)
    sweeps = results / "sweeps" / "gowalla" / "caser"
    for name, role, alpha in [
        ("default", "teacher", 1.0),
        ("default", "student", 1.0),
        ("default", "distilled", 1.0),
        ("alpha=2", "distilled", 2.0),
    ]:
        run = make_run(runs / name / role, role, 0, split="validation", alpha=alpha)
        keep_evidence(run, sweeps / name / "seed-0" / role, per_user=False)
    return results


@pytest.fixture(scope="module")
def summary(results):
    return summarise(results, CELLS)


def test_markdown_shows_ours_beside_the_published(summary):
    text = markdown_tables(summary)
    gowalla, rest = text.split("### Foursquare")
    assert "| Caser teacher, 3 seeds (0, 1, 2) | 100 | 100,000 (100.0 %) | **.3" in gowalla
    assert "| *published* | | | *.1408* | *.1149* | *.0856* | *.1546* | *.1376* | *.1251* | *.0958* |" in gowalla
    assert gowalla.count("*difference*") == 3
    assert " ± .0" in gowalla
    gains = next(line for line in gowalla.splitlines() if line.startswith("| distilled against student alone"))
    assert gains.count("% \\*\\* |") == 7
    assert "| *published gain* | | | *+9.4 %* |" in gowalla
    assert "| gowalla/caser: distilled against teacher | -1" in rest


def test_a_cell_without_results_is_shown_as_missing(summary):
    assert "| Fossil: no results yet |" in markdown_tables(summary)
    assert "Fossil" not in latex_tables(summary)


def test_of_other_data_only_gains_stand_beside_the_published(summary):
    foursquare = markdown_tables(summary).split("### Foursquare")[1].split("###")[0]
    assert "The check-ins are not the paper's" in foursquare
    assert "*published*" not in foursquare
    assert "*difference*" not in foursquare
    assert foursquare.count("*published gain*") == 2
    assert "| Caser teacher, seed 0 |" in foursquare
    assert "±" not in foursquare


def test_efficiency_stands_beside_the_published(summary):
    text = markdown_tables(summary)
    student = "| gowalla/caser student distilled | 2,500,000 (50.0 %) | 2.79 M (50.0 %) | 1.000 (50.0 %) |"
    assert f"{student} 18.63 (48.3 %) | 10.00 (50.0 %) |" in text
    assert "1,024 users a call, median of 5 turns, on 2 cores of EPYC." in text


def test_latex_has_the_papers_layout(summary):
    gowalla = latex_tables(summary).split("\\end{table}")[0]
    rows = [line.split("&")[0].strip() for line in gowalla.splitlines() if line.startswith("    Caser-")]
    assert rows == ["Caser-T", "Caser-RD", "Caser-S"]
    assert "\\toprule" in gowalla
    assert gowalla.count("\\textbf{") == 7
    # Better than the student alone, worse than the teacher.
    assert gowalla.count("$^{**\\ddagger\\ddagger}$") == 7


def test_all_is_written_from_results_alone_and_again_the_same(results):
    written = write_output(results, CELLS)
    names = [path.relative_to(results).as_posix() for path in written]
    assert names == [
        "summary.json",
        "tables.md",
        "tables.tex",
        "significance.csv",
        "plots/map.png",
        "plots/learning-gowalla-caser.png",
        "plots/sweep-gowalla-caser-alpha.png",
    ]
    before = [path.read_bytes() for path in written]
    write_output(results, CELLS)
    assert [path.read_bytes() for path in written] == before
    lines = (results / "significance.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 7


def test_pictures_of_earlier_calls_are_removed(results):
    old = results / "plots" / "sweep-gowalla-caser-k.png"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"")
    write_output(results, CELLS)
    assert not old.exists()
    assert (results / "plots" / "map.png").is_file()


def test_the_page_and_the_readme_show_the_summary(results):
    write_output(results, CELLS)
    page = fill_reproduction(MARKERS, results.parent)
    assert markdown_tables(read_json(results / "summary.json")) in page
    assert "sweep-gowalla-caser-alpha.png)" in page
    assert fill_reproduction(page, results.parent) == page
    rows = readme_table(results.parent).splitlines()[2:]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| Gowalla, Caser, paper's settings", "3", "50 %"],
        ["| Foursquare, Caser, paper's settings", "1", "50 %"],
    ]
    assert "\\*\\* |" in rows[0]


def test_a_page_without_results_says_so(tmp_path):
    page = fill_reproduction(MARKERS, tmp_path)
    assert "No cell has been run yet." in page
    assert "No other run has been kept." in page
    assert "No plot has been drawn yet." in page


def test_the_reproduction_page_and_the_summary_are_current():
    page = PAGE.read_text(encoding="utf-8")
    assert fill_reproduction(page, RESULTS) == page, "run python -m pipelines.paper.output"
    if (RESULTS / "paper" / "summary.json").is_file():
        shown = read_json(RESULTS / "paper" / "summary.json")
        found = summarise(RESULTS / "paper", [Cell(*name.split("/")) for name in shown["cells"]])
        assert markdown_tables(found) == markdown_tables(shown), "run python -m pipelines.paper --notrain"
