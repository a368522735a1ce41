"""The cells of a summary by dataset."""

from typing import Any


def cells_by_dataset(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Dataset -> model -> what `summarise` has of the cell, None where nothing; all in the summary's order."""
    found: dict[str, dict[str, Any]] = {}
    for name, cell in summary["cells"].items():
        dataset, model = name.split("/")
        found.setdefault(dataset, {})[model] = cell
    return found
