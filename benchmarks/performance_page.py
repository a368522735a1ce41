"""python -m benchmarks.performance_page: writes the tables of pages in docs/ from results/."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import cells
from benchmarks.optimizers_table import optimizers_table
from benchmarks.scale_model_page import PAGE as SCALE_PAGE
from benchmarks.scale_model_page import fill_scale
from pipelines.report import replace_between
from rd_tf import command_line
from rd_tf.storage import write_text

_ROOT = Path(__file__).parents[1]
RESULTS, PAGE = _ROOT / "results", _ROOT / "docs" / "performance.md"
SERVING_PAGE = _ROOT / "docs" / "serving_load.md"
TEACH_PAGE = _ROOT / "docs" / "scale_teach.md"
# Between these markers of the pages stand the tables of the files of the same names below results/benchmarks/.
NAMES = ("train_step", "train_step_adam", "top_k", "evaluate", "scale", "cache")
SERVING_NAMES = ("serving", "serving_million", "soak")
TEACH_NAMES = ("beam_teach",)


def performance_page() -> None:
    """Replaces the tables between the pages' markers by what results/ holds."""
    pages = ((PAGE, fill), (SERVING_PAGE, fill_serving), (TEACH_PAGE, fill_teach), (SCALE_PAGE, fill_scale))
    for page, fill_page in pages:
        write_text(page, fill_page(page.read_text(encoding="utf-8"), RESULTS))
        print(f"wrote {page}")


def fill(page: str, results: Path) -> str:
    """Puts every file of results into docs/performance.md.

    Raises:
        InputError: a marker is missing.
    """
    page = _fill(page, NAMES, results, "docs/performance.md")
    return replace_between(page, "optimizers", optimizers_table(results / "gowalla"), "docs/performance.md")


def fill_serving(page: str, results: Path) -> str:
    """The same for docs/serving_load.md."""
    return _fill(page, SERVING_NAMES, results, "docs/serving_load.md")


def fill_teach(page: str, results: Path) -> str:
    """The same for docs/scale_teach.md."""
    return _fill(page, TEACH_NAMES, results, "docs/scale_teach.md")


def _fill(page: str, names: Sequence[str], results: Path, title: str) -> str:
    for name in names:
        path = results / "benchmarks" / f"{name}.jsonl"
        if path.is_file():
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            page = replace_between(page, name, _markdown(records), title)
    return page


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
