"""The paper's tables in Markdown, ours beside the published."""

from collections.abc import Iterable
from typing import Any

from pipelines.efficiency_table import efficiency_table
from pipelines.markdown_row import head, row
from pipelines.number_text import p_text, percent, seeds_text, short, stars, with_deviation
from pipelines.published import COLUMNS, PUBLISHED, SAME_DATA
from pipelines.roles import ROLES

HEADS = ("P@3", "P@5", "P@10", "N@3", "N@5", "N@10", "MAP")
LEGEND = (
    "Mean ± sample standard deviation over the seeds. \\*\\* p < .01, \\* p < .05: paired t-test over the users, whose "
    "values are averaged over the seeds, Holm-corrected over a model's 7 metrics and 2 comparisons; it says that these "
    "trained models differ for users such as these, not that other seeds would."
)
_OTHER_DATA = (
    "The check-ins are not the paper's, so only the gains can be held against the published ones, not the values."
)
_NAMES = {"student": "student alone", "teacher": "teacher"}


def markdown_tables(summary: dict[str, Any]) -> str:
    """Effectiveness by dataset, the tests, and efficiency.

    Args:
        summary: what `summarise` returns.
    """
    parts = [f"Split: {summary['split']}. {LEGEND}", ""] if summary["split"] else []
    parts += [effectiveness_table(summary, dataset) for dataset in datasets(summary)]
    measured = {name: cell for name, cell in summary["cells"].items() if cell}
    if measured:
        parts += [_tests_table(measured), efficiency_table(measured)]
    return "\n".join(parts).rstrip("\n") + "\n"


def datasets(summary: dict[str, Any]) -> list[str]:
    """The datasets of the cells, in their order."""
    return list(dict.fromkeys(name.split("/")[0] for name in summary["cells"]))


def effectiveness_table(summary: dict[str, Any], dataset: str) -> str:
    """One dataset's table: every model's three roles, and what distillation gains."""
    lines = [f"### {dataset.capitalize()}", ""]
    if dataset not in SAME_DATA and any(name in PUBLISHED for name in _cells(summary, dataset)):
        lines += [_OTHER_DATA, ""]
    lines += head("", "d", "parameters", *HEADS)
    for name, cell in _cells(summary, dataset).items():
        lines += [row(f"{_model(name)}: no results yet", *[""] * 9)] if cell is None else _cell_rows(name, cell)
    return "\n".join(lines) + "\n"


def _cells(summary: dict[str, Any], dataset: str) -> dict[str, Any]:
    return {name: cell for name, cell in summary["cells"].items() if name.split("/")[0] == dataset}


def _cell_rows(name: str, cell: dict[str, Any]) -> Iterable[str]:
    published = PUBLISHED.get(name, {})
    teacher = cell["roles"]["teacher"]["parameters"]
    best = {column: max(ROLES, key=lambda role: cell["roles"][role]["metrics"][column]["mean"]) for column in COLUMNS}
    for role, title in ROLES.items():
        found = cell["roles"][role]
        size = f"{found['parameters']:,} ({100 * found['parameters'] / teacher:.1f} %)"
        texts = [with_deviation(found["metrics"][column]) for column in COLUMNS]
        texts = [f"**{text}**" if best[column] == role else text for text, column in zip(texts, COLUMNS, strict=True)]
        of = f", {seeds_text(cell['seeds'])}" if role == "teacher" else ""
        yield row(f"{_model(name)} {title}{of}", found["dim"], size, *texts)
        if role in published and name.split("/")[0] in SAME_DATA:
            yield row("*published*", "", "", *(f"*{short(value)}*" for value in published[role]))
            ours = [found["metrics"][column]["mean"] for column in COLUMNS]
            yield row("*difference*", "", "", *(f"*{text}*" for text in _gains(ours, published[role])))
    for reference, other in _NAMES.items():
        tests = cell["comparisons"][reference].values()
        marked = (f"{percent(test['percent'])} {stars(test['t_holm'])}".strip() for test in tests)
        yield row(f"distilled against {other}", "", "", *(text.replace("*", "\\*") for text in marked))
        if published:
            gains = _gains(published["distilled"], published[reference])
            yield row("*published gain*", "", "", *(f"*{text}*" for text in gains))


def _gains(values: Iterable[float], references: Iterable[float]) -> list[str]:
    return [percent(100 * (value / other - 1)) for value, other in zip(values, references, strict=True)]


def _tests_table(cells: dict[str, Any]) -> str:
    lines = ["### Significance of MAP", ""]
    lines += [
        "Two-sided p-values, those over users Holm-corrected; Wilcoxon's signed-rank test with zero differences as "
        "Pratt treats them. All metrics: significance.csv.",
        "",
        *head("", "difference", "95 % interval", "users", "t over users", "Wilcoxon", "t over seeds"),
    ]
    for name, cell in cells.items():
        for reference, other in _NAMES.items():
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


def _model(name: str) -> str:
    return name.split("/")[1].capitalize()
