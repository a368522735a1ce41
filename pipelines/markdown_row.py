"""Rows of a Markdown table."""

from typing import Any


def row(*cells: Any) -> str:
    """One row; an empty cell is one space."""
    return "|" + "".join(f" {cell} |" if cell != "" else " |" for cell in cells)


def head(*cells: str) -> list[str]:
    """The heading and the line below it."""
    return [row(*cells), "|" + "---|" * len(cells)]
