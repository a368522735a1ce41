"""python -m pipelines.reproduction_page: writes the tables of docs/reproduction.md from results/."""

import os
from pathlib import Path

from pipelines.generated_text import replace_between
from pipelines.paper_markdown import markdown_tables
from pipelines.paper_output import PLOTS, SUMMARY
from pipelines.tuning_table import tuning_table
from rd_tf import command_line
from rd_tf.storage import read_json, write_text

_ROOT = Path(__file__).parents[1]
RESULTS, PAGE = _ROOT / "results" / "paper", _ROOT / "docs" / "reproduction.md"
_NOTHING = "No cell has been run yet."


def reproduction_page() -> None:
    """Replaces the text between the page's markers by what results/paper holds."""
    write_text(PAGE, fill(PAGE.read_text(encoding="utf-8"), RESULTS))
    print(f"wrote {PAGE}")


def fill(page: str, results: Path) -> str:
    """Puts the tables and plots into the page.

    Args:
        page: its text.
        results: what `pipelines.paper` has filled, or nothing yet; beside it lies `tuning`, if anything was tried.

    Raises:
        InputError: a marker is missing.
    """
    summary = read_json(results / SUMMARY) if (results / SUMMARY).is_file() else {"cells": {}}
    tables = markdown_tables(summary) if any(summary["cells"].values()) else f"{_NOTHING}\n"
    page = replace_between(page, "tables", f"\n{tables}", "docs/reproduction.md")
    page = replace_between(page, "plots", f"\n{_plots(results)}", "docs/reproduction.md")
    return replace_between(page, "tuning", f"\n{tuning_table(results.parent / 'tuning')}", "docs/reproduction.md")


def _plots(results: Path) -> str:
    pictures = sorted((results / PLOTS).glob("*.png"))
    links = [f"![{path.stem}]({os.path.relpath(path, PAGE.parent)})\n" for path in pictures]
    return "\n".join(links) or "No plot has been drawn yet.\n"


if __name__ == "__main__":
    command_line.run(reproduction_page)
