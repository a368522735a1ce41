"""Everything that is shown of the paper's cells, written from results/ alone."""

from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.cell_plots import plot_cells, plot_learning
from pipelines.cells import Cell
from pipelines.paper_latex import latex_tables
from pipelines.paper_markdown import markdown_tables
from pipelines.paper_summary import summarise
from pipelines.sweep_plots import plot_sweeps
from rd_tf.storage import write_json, write_text

SUMMARY = "summary.json"
PLOTS = "plots"


def write_output(results: Path, cells: list[Cell]) -> list[Path]:
    """Writes `summary.json`, `tables.md`, `tables.tex`, `significance.csv` and `plots/*.png`, and prints their names.

    Pictures of an earlier call that are not written again are removed.

    Args:
        results: directory of the evidence, which gets the files.
        cells: those to show, there or not.

    Raises:
        InputError: evidence that does not belong together.
    """
    summary = summarise(results, cells)
    written = [results / name for name in (SUMMARY, "tables.md", "tables.tex", "significance.csv")]
    write_json(written[0], summary)
    write_text(written[1], markdown_tables(summary))
    write_text(written[2], latex_tables(summary))
    write_text(written[3], significance_csv(summary))
    pictures = [plot_cells(summary, results / PLOTS / "map.png")]
    for sweeps in sorted(path for path in results.glob("sweeps/*/*") if path.is_dir()):
        learning = f"learning-{sweeps.parent.name}-{sweeps.name}.png"
        pictures.append(plot_learning(sweeps, results / PLOTS / learning))
        pictures += plot_sweeps(sweeps, results / PLOTS)
    written += [path for path in pictures if path]
    # The page shows all pictures that it finds.
    for path in set((results / PLOTS).glob("*.png")) - set(written):
        path.unlink()
    for path in written:
        print(f"wrote {path}")
    return written


def significance_csv(summary: dict[str, Any]) -> str:
    """All tests, a line a cell, comparison and metric; empty where there is no value."""
    rows = [
        {"cell": name, "distilled_against": reference, "metric": metric, **test}
        for name, cell in summary["cells"].items()
        for reference, tests in (cell["comparisons"] if cell else {}).items()
        for metric, test in tests.items()
    ]
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")
