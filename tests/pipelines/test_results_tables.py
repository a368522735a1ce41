"""The README's tables are what results/ holds."""

from pathlib import Path

import pytest

from pipelines.results_tables import insert, tables
from rd_tf.storage import InputError

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_what_results_hold():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    between = tables(ROOT / "results")
    assert "student distilled" in between
    assert insert(readme, between) == readme, "run python -m pipelines.results_tables"


def test_every_published_number_has_its_run_beside_it():
    between = tables(ROOT / "results")
    # Three roles of Caser on Gowalla, and of Fossil once results/paper has it.
    assert between.count("*published*") in (3, 6)


def test_a_readme_without_markers_is_refused():
    with pytest.raises(InputError, match="lacks the markers"):
        insert("nothing", "table")
