"""python -m pipelines.results_tables: writes the README's results tables from results/."""

import os
from pathlib import Path
from typing import Any

from pipelines.generated_text import replace_between
from pipelines.published import COLUMNS, PUBLISHED
from pipelines.roles import ROLES
from rd_tf import command_line, storage

_ROOT = Path(__file__).parents[1]
_HEADS = ("P@3", "P@5", "P@10", "N@3", "N@5", "N@10", "MAP")
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
    """Markdown of every folder of results that is there."""
    parts = []
    for folder, title in _FOLDERS.items():
        path = Path(results) / folder / "report.json"
        if path.is_file():
            parts.append(_table(storage.read_json(path), title, folder))
    return "\n".join(parts)


def _table(report: dict[str, Any], title: str, folder: str) -> str:
    seeds = report["seeds"]
    of = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds))}"
    lines = [f"**{title}**: {report['split']} split, {of} ([flags, logs and metrics](results/{folder}))", ""]
    lines += [f"| | d | parameters | {' | '.join(_HEADS)} |", f"|---|---|---|{'---|' * len(_HEADS)}"]
    published = PUBLISHED.get(folder, {})
    teacher = report["roles"]["teacher"]["parameters"]
    for role, name in ROLES.items():
        found = report["roles"][role]
        size = f"{found['parameters']:,} ({100 * found['parameters'] / teacher:.1f} %)"
        values = " | ".join(_number(found["metrics"][column]) for column in COLUMNS)
        lines.append(f"| {name} | {found['dim']} | {size} | {values} |")
        if role in published:
            lines.append(f"| *published* | | | {' | '.join(f'*{_number(value)}*' for value in published[role])} |")
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


def _number(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


if __name__ == "__main__":
    command_line.run(results_tables)
