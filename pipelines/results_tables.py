"""python -m pipelines.results_tables: writes the README's results tables from results/."""

import os
from pathlib import Path
from typing import Any

from pipelines.cells_by_dataset import cells_by_dataset
from pipelines.effectiveness_table import effectiveness_table
from pipelines.generated_text import replace_between
from pipelines.markdown_row import head, row
from pipelines.number_text import gain, short, size
from pipelines.paper_markdown import LEGEND
from pipelines.paper_output import SUMMARY
from pipelines.published import COLUMNS, HEADS, PUBLISHED
from pipelines.roles import ROLES
from rd_tf import command_line
from rd_tf.storage import read_json, write_text

_ROOT = Path(__file__).parents[1]
# Folder below results/ -> heading, in the order of the README.
_FOLDERS = {
    "gowalla/caser": "Gowalla, Caser, the paper's settings",
    "unseen/gowalla_raw": "SNAP's raw Gowalla sample (tuned on by nobody), Caser, the paper's settings unchanged",
    "unseen/world": "Built-in world (12,000 users, tuned on by nobody), Caser, the paper's settings unchanged",
    "unseen/world_small": "Built-in world (1,000 users: too small for d = 100), Caser, the paper's settings unchanged",
    "quickstart": "Built-in world, `make quickstart`",
}


def results_tables() -> None:
    """Replaces the tables between the README's two markers by what results/ holds."""
    readme = _ROOT / "README.md"
    write_text(readme, insert(readme.read_text(encoding="utf-8"), tables(_ROOT / "results")))
    print(f"wrote {readme}")


def insert(text: str, between: str) -> str:
    """Puts the tables between the README's markers.

    Raises:
        InputError: a marker is missing.
    """
    return replace_between(text, "results", between, "README.md")


def tables(results: str | os.PathLike[str]) -> str:
    """Markdown of every folder of results that is there; the paper's cells stand in place of their single reports."""
    summary_path = Path(results) / "paper" / SUMMARY
    summary = read_json(summary_path) if summary_path.is_file() else {"cells": {}}
    done = {name for name, cell in summary["cells"].items() if cell}
    parts = [_paper(summary)] if done else []
    for folder, title in _FOLDERS.items():
        path = Path(results) / folder / "report.json"
        if path.is_file() and folder not in done:
            parts.append(_table(read_json(path), title, folder))
    return "\n".join(parts)


def _paper(summary: dict[str, Any]) -> str:
    shown = {dataset: cells for dataset, cells in cells_by_dataset(summary).items() if any(cells.values())}
    return "\n".join(
        [
            f"**The paper's tables**: {summary['split']} split ([flags, logs and metrics](results/paper); "
            "[how to repeat them, tests, efficiency, plots](docs/reproduction.md))",
            "",
            LEGEND,
            "",
            *(effectiveness_table(dataset, cells) for dataset, cells in shown.items()),
        ]
    )


def _table(report: dict[str, Any], title: str, folder: str) -> str:
    seeds = report["seeds"]
    of = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds))}"
    lines = [f"**{title}**: {report['split']} split, {of} ([flags, logs and metrics](results/{folder}))", ""]
    lines += head("", "d", "parameters", *HEADS)
    published = PUBLISHED.get(folder, {})
    teacher = report["roles"]["teacher"]["parameters"]
    for role, name in ROLES.items():
        found = report["roles"][role]
        values = (short(found["metrics"][column]) for column in COLUMNS)
        lines.append(row(name, found["dim"], size(found["parameters"], teacher), *values))
        if role in published:
            lines.append(row("*published*", "", "", *(f"*{short(value)}*" for value in published[role])))
    alone, distilled = (report["roles"][role]["metrics"] for role in ("student", "distilled"))
    gains = (gain(distilled[column], alone[column]) for column in COLUMNS)
    lines.append(row("distilled against alone", "", "", *gains))
    if len(seeds) > 1:
        maps = [
            f"{report['roles']['student']['by_seed'][str(seed)]['map']:.4f} → "
            f"{report['roles']['distilled']['by_seed'][str(seed)]['map']:.4f}"
            for seed in seeds
        ]
        lines += ["", f"MAP of the student, alone → distilled, by seed: {', '.join(maps)}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line.run(results_tables)
