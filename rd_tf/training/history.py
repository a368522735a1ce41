"""A run's history: one line an epoch."""

import csv
import io
import os
from typing import Any

from rd_tf import storage


class History:
    """Collects epochs and keeps `history.csv` up to date.

    Args:
        path: the file; None writes none.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Adds an epoch and rewrites the file; columns that only some epochs have stay empty in the others."""
        self.rows.append(row)
        if self._path is None:
            return
        names = list(dict.fromkeys(name for each in self.rows for name in each))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in each.items()}
            for each in self.rows
        )
        storage.write_text(self._path, text.getvalue())
