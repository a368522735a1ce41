"""python -m benchmarks.performance_page: writes the tables of docs/performance.md from results/."""

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import cells
from benchmarks.optimizers_table import optimizers_table
from pipelines.generated_text import replace_between
from rd_tf import command_line, storage

_ROOT = Path(__file__).parents[1]
RESULTS, PAGE = _ROOT / "results", _ROOT / "docs" / "performance.md"
# Between these markers of the page stand the tables of the files of the same names below results/benchmarks/.
NAMES = ("train_step", "train_step_adam", "top_k", "evaluate", "scale", "cache")


def performance_page() -> None:
    """Replaces the tables between the page's markers by what results/ holds."""
    storage.write_text(PAGE, fill(PAGE.read_text(encoding="utf-8"), RESULTS))
    print(f"wrote {PAGE}")


def fill(page: str, results: Path) -> str:
    """Puts every file of results into the page.

    Raises:
        InputError: a marker is missing.
    """
    for name in NAMES:
        path = results / "benchmarks" / f"{name}.jsonl"
        if path.is_file():
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            page = replace_between(page, name, _markdown(records), "docs/performance.md")
    return replace_between(page, "optimizers", optimizers_table(results / "gowalla"), "docs/performance.md")


def _markdown(records: list[dict[str, Any]]) -> str:
    machine = next(record for record in records if record["benchmark"] == "machine")
    headings, *rows = cells([record for record in records if "case" in record])
    lines = ["", f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, {machine['peak_gflops']:.0f} GFLOP/s, "
        f"{machine['bandwidth_gb']:.0f} GB/s, TensorFlow {machine['tensorflow']}, "
        f"revision {machine['git_revision'] or 'unknown'}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(performance_page)
