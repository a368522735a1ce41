"""Cells side by side, and how their models learn."""

from pathlib import Path
from typing import Any

from pipelines.curves import COLORS
from pipelines.picture import picture
from pipelines.roles import ROLES
from pipelines.run_history import read_history
from pipelines.sweeps import DEFAULT
from rd_tf import run_directory


def plot_cells(summary: dict[str, Any], path: Path) -> Path | None:
    """Plots the MAP of every cell's roles, a dot a seed and a line at the mean.

    Args:
        summary: what `summarise` returns.
        path: the picture.

    Returns:
        The picture's path, or None when no cell has evidence.
    """
    cells = {name: cell for name, cell in summary["cells"].items() if cell}
    if not cells:
        return None
    with picture(path, figsize=(1.5 + 1.6 * len(cells), 3.2)) as axis:
        for place, cell in enumerate(cells.values()):
            for index, role in enumerate(ROLES):
                x, found = place + 0.22 * (index - 1), cell["roles"][role]["metrics"]["map"]
                values = list(found["by_seed"].values())
                label = ROLES[role] if place == 0 else None
                axis.plot([x] * len(values), values, "o", color=COLORS[role], markersize=4, label=label)
                axis.hlines(found["mean"], x - 0.08, x + 0.08, color=COLORS[role])
        axis.set_xticks(range(len(cells)), cells, fontsize=8)
        axis.set_xlim(-0.5, len(cells) - 0.5)
        axis.set(ylabel=f"MAP, {summary['split']} split")
        axis.grid(alpha=0.3, axis="y")
        axis.legend(fontsize=8)
    return path


def plot_learning(sweeps: Path, path: Path) -> Path | None:
    """Plots validation MAP by epoch of a cell's runs with its own settings, a line a seed.

    Args:
        sweeps: `<results>/sweeps/<dataset>/<model>`.
        path: the picture.

    Returns:
        The picture's path, or None when no history has a validation MAP.
    """
    curves = []
    for role in ROLES:
        for file in sorted(sweeps.glob(f"{DEFAULT}/seed-*/{role}/{run_directory.HISTORY}")):
            history = read_history(file.parent)
            if "validation/map" in history:
                curves.append((role, history.dropna(subset="validation/map")))
    if not curves:
        return None
    with picture(path, figsize=(4.5, 3.2)) as axis:
        named = set()
        for role, history in curves:
            label = None if role in named else ROLES[role]
            named.add(role)
            axis.plot(history["epoch"], history["validation/map"], color=COLORS[role], marker=".", label=label)
        axis.set(title=f"{sweeps.parent.name}/{sweeps.name}", xlabel="epoch", ylabel="validation MAP")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return path
