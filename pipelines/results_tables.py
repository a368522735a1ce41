"""python -m pipelines.results_tables: writes the README's results tables from results/."""

import os
from pathlib import Path
from typing import Any

from pipelines.generated_text import replace_between
from pipelines.number_text import short
from pipelines.paper_markdown import HEADS, LEGEND, datasets, effectiveness_table
from pipelines.paper_output import SUMMARY
from pipelines.published import COLUMNS, PUBLISHED
from pipelines.roles import ROLES
from rd_tf import command_line, storage

_ROOT = Path(__file__).parents[1]
# Folder below results/ -> heading, in the order of the README.
_FOLDERS = {
    "gowalla/caser": "Gowalla, Caser, the paper's settings",
    "quickstart": "Built-in world, `make quickstart`",
}


def results_tables() -> None:
    """Replaces the tables between the README's two markers by what results/ holds."""
    readme = _ROOT / "README.md"
    storage.write_text(readme, insert(readme.read_text(encoding="utf-8"), tables(_ROOT / "results")))
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
    summary = storage.read_json(summary_path) if summary_path.is_file() else {"cells": {}}
    done = {name for name, cell in summary["cells"].items() if cell}
    parts = [_paper(summary)] if done else []
    for folder, title in _FOLDERS.items():
        path = Path(results) / folder / "report.json"
        if path.is_file() and folder not in done:
            parts.append(_table(storage.read_json(path), title, folder))
    return "\n".join(parts)


def _paper(summary: dict[str, Any]) -> str:
    shown = [dataset for dataset in datasets(summary) if _is_begun(summary, dataset)]
    return "\n".join(
        [
            f"**The paper's tables**: {summary['split']} split ([flags, logs and metrics](results/paper); "
            "[how to repeat them, tests, efficiency, plots](docs/reproduction.md))",
            "",
            f"{LEGEND}",
            "",
            *(effectiveness_table(summary, dataset) for dataset in shown),
        ]
    )


def _is_begun(summary: dict[str, Any], dataset: str) -> bool:
    return any(cell for name, cell in summary["cells"].items() if name.split("/")[0] == dataset)


def _table(report: dict[str, Any], title: str, folder: str) -> str:
    seeds = report["seeds"]
    of = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds))}"
    lines = [f"**{title}**: {report['split']} split, {of} ([flags, logs and metrics](results/{folder}))", ""]
    lines += [f"| | d | parameters | {' | '.join(HEADS)} |", f"|---|---|---|{'---|' * len(HEADS)}"]
    published = PUBLISHED.get(folder, {})
    teacher = report["roles"]["teacher"]["parameters"]
    for role, name in ROLES.items():
        found = report["roles"][role]
        size = f"{found['parameters']:,} ({100 * found['parameters'] / teacher:.1f} %)"
        values = " | ".join(short(found["metrics"][column]) for column in COLUMNS)
        lines.append(f"| {name} | {found['dim']} | {size} | {values} |")
        if role in published:
            lines.append(f"| *published* | | | {' | '.join(f'*{short(value)}*' for value in published[role])} |")
    alone, distilled = (report["roles"][role]["metrics"] for role in ("student", "distilled"))
    gains = " | ".join(f"{100 * (distilled[column] / alone[column] - 1):+.1f} %" for column in COLUMNS)
    lines.append(f"| distilled against alone | | | {gains} |")
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
