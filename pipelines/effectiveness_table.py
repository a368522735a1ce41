"""How well a dataset's models rank, in Markdown."""

from collections.abc import Iterable
from typing import Any

from pipelines.markdown_row import head, row
from pipelines.number_text import gain, percent, seeds_text, short, size, stars, with_deviation
from pipelines.published import COLUMNS, HEADS, PUBLISHED, SAME_DATA
from pipelines.roles import REFERENCES, ROLES

_OTHER_DATA = (
    "The check-ins are not the paper's, so only the gains can be held against the published ones, not the values."
)


def effectiveness_table(dataset: str, cells: dict[str, Any]) -> str:
    """Every model's three roles, and what distillation gains, the published values beside them.

    Args:
        dataset: its name.
        cells: model -> cell of the summary, None where there are no results.

    Returns:
        The table under its heading.
    """
    lines = [f"### {dataset.capitalize()}", ""]
    if dataset not in SAME_DATA and any(f"{dataset}/{model}" in PUBLISHED for model in cells):
        lines += [_OTHER_DATA, ""]
    lines += head("", "d", "parameters", *HEADS)
    for model, cell in cells.items():
        title = model.capitalize()
        if cell is None:
            lines.append(row(f"{title}: no results yet", *[""] * 9))
        else:
            lines += _cell_rows(title, cell, PUBLISHED.get(f"{dataset}/{model}", {}), dataset in SAME_DATA)
    return "\n".join(lines) + "\n"


def _cell_rows(title: str, cell: dict[str, Any], published: dict[str, Any], is_same_data: bool) -> Iterable[str]:
    teacher = cell["roles"]["teacher"]["parameters"]
    best = {column: max(ROLES, key=lambda role: cell["roles"][role]["metrics"][column]["mean"]) for column in COLUMNS}
    for role, name in ROLES.items():
        found = cell["roles"][role]
        texts = [with_deviation(found["metrics"][column]) for column in COLUMNS]
        texts = [f"**{text}**" if best[column] == role else text for text, column in zip(texts, COLUMNS, strict=True)]
        of = f", {seeds_text(cell['seeds'])}" if role == "teacher" else ""
        yield row(f"{title} {name}{of}", found["dim"], size(found["parameters"], teacher), *texts)
        if role in published and is_same_data:
            yield row("*published*", "", "", *(f"*{short(value)}*" for value in published[role]))
            ours = [found["metrics"][column]["mean"] for column in COLUMNS]
            yield row("*difference*", "", "", *_gains(ours, published[role]))
    for reference, other in REFERENCES.items():
        tests = cell["comparisons"][reference].values()
        marked = (f"{percent(test['percent'])} {stars(test['t_holm'])}".strip() for test in tests)
        yield row(f"distilled against {other}", "", "", *(text.replace("*", "\\*") for text in marked))
        if published:
            yield row("*published gain*", "", "", *_gains(published["distilled"], published[reference]))


def _gains(values: Iterable[float], references: Iterable[float]) -> list[str]:
    return [f"*{gain(value, other)}*" for value, other in zip(values, references, strict=True)]
