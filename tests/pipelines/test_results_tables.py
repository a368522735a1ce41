"""The README's tables are what results/ holds."""

import pytest

from pipelines.paper.output import README, RESULTS, fill_readme
from pipelines.paper.tables import readme_tables
from rd_tf.storage import InputError


def test_the_readme_shows_what_results_hold():
    readme = README.read_text(encoding="utf-8")
    between = readme_tables(RESULTS)
    assert "student distilled" in between
    assert fill_readme(readme, RESULTS) == readme, "run python -m pipelines.paper.output"


def test_every_published_number_has_its_run_beside_it():
    between = readme_tables(RESULTS)
    # Three roles of Caser on Gowalla, and of Fossil once results/paper has it.
    assert between.count("*published*") in (3, 6)


def test_a_readme_without_markers_is_refused():
    with pytest.raises(InputError, match="lacks the markers"):
        fill_readme("nothing", RESULTS)
