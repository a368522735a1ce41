"""Rows of a Markdown table."""

from typing import Any


def row(*cells: Any) -> str:
    """One row."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: str) -> list[str]:
    """The heading and the line below it."""
    return [row(*cells), "|" + "---|" * len(cells)]
