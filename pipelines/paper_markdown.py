"""The paper's tables in Markdown, ours beside the published."""

from typing import Any

from pipelines.cells_by_dataset import cells_by_dataset
from pipelines.effectiveness_table import effectiveness_table
from pipelines.efficiency_table import efficiency_table
from pipelines.markdown_row import head, row
from pipelines.number_text import p_text, percent
from pipelines.roles import REFERENCES

LEGEND = (
    "Mean ± sample standard deviation over the seeds. \\*\\* p < .01, \\* p < .05: paired t-test over the users, whose "
    "values are averaged over the seeds, Holm-corrected over a model's 7 metrics and 2 comparisons; it says that these "
    "trained models differ for users such as these, not that other seeds would."
)


def markdown_tables(summary: dict[str, Any]) -> str:
    """Effectiveness by dataset, the tests, and efficiency.

    Args:
        summary: what `summarise` returns.
    """
    parts = [f"Split: {summary['split']}. {LEGEND}", ""] if summary["split"] else []
    parts += [effectiveness_table(dataset, cells) for dataset, cells in cells_by_dataset(summary).items()]
    measured = {name: cell for name, cell in summary["cells"].items() if cell}
    if measured:
        parts += [_tests_table(measured), efficiency_table(measured)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _tests_table(cells: dict[str, Any]) -> str:
    lines = ["### Significance of MAP", ""]
    lines += [
        "Two-sided p-values, those over users Holm-corrected; Wilcoxon's signed-rank test with zero differences as "
        "Pratt treats them. All metrics: significance.csv.",
        "",
        *head("", "difference", "95 % interval", "users", "t over users", "Wilcoxon", "t over seeds"),
    ]
    for name, cell in cells.items():
        for reference, other in REFERENCES.items():
            test = cell["comparisons"][reference]["map"]
            lines.append(
                row(
                    f"{name}: distilled against {other}",
                    percent(test["percent"]),
                    f"{percent(test['percent_low'])} to {percent(test['percent_high'])}",
                    f"{cell['users']:,}",
                    p_text(test["t_holm"]),
                    p_text(test["wilcoxon_holm"]),
                    f"{p_text(test['seeds_t_p'])} (n = {test['seeds_n']})",
                )
            )
    return "\n".join(lines) + "\n"
