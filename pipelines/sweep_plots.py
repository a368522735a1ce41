"""A metric against one setting, from the runs of a cell's sweeps."""

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.curves import COLORS
from pipelines.roles import ROLES
from pipelines.sweeps import DEFAULT
from rd_tf import run_directory, storage

_TITLES = {
    "k": "K, length of the teacher's list",
    "position_temperature": "$\\lambda$, position_temperature",
    "discrepancy_sharpness": "$\\mu$, discrepancy_sharpness",
    "alpha": "$\\alpha$, weight of the distillation loss",
    "student_dim": "d of the student",
}
Points = dict[float, list[float]]


def plot_sweeps(sweeps: Path, directory: Path) -> list[Path]:
    """Plots validation MAP against each flag that a cell's sweeps hold runs of; a dot a seed, a line the mean.

    Args:
        sweeps: `<results>/sweeps/<dataset>/<model>`.
        directory: gets `sweep-<dataset>-<model>-<flag>.png`.

    Returns:
        The pictures.
    """
    defaults = _runs(sweeps / DEFAULT)
    pictures = []
    for flag, title in _TITLES.items():
        series = _series(sweeps, flag, defaults)
        if len(series["distilled"]) > 1:
            path = directory / f"sweep-{sweeps.parent.name}-{sweeps.name}-{flag}.png"
            _plot(series, _alone(defaults, flag), f"{sweeps.parent.name}/{sweeps.name}", title, path)
            pictures.append(path)
    return pictures


def _runs(directory: Path) -> list[tuple[str, dict[str, Any], float]]:
    """Role, flags and MAP of every run of one setting."""
    found = []
    for path in sorted(directory.glob("seed-*/*/" + run_directory.METRICS)):
        manifest = run_directory.load_run_manifest(path.parent)
        found.append((path.parent.name, manifest["flags"], float(storage.read_json(path)["metrics"]["map"])))
    return found


def _series(sweeps: Path, flag: str, defaults: list[tuple[str, dict[str, Any], float]]) -> dict[str, Points]:
    roles = ("student", "distilled") if flag == "student_dim" else ("distilled",)
    of_flag = "dim" if flag == "student_dim" else flag
    series: dict[str, Points] = {role: {} for role in roles}
    others = [run for path in sorted(sweeps.glob(f"{flag}=*")) for run in _runs(path)]
    for role, flags, value in (*defaults, *others):
        # A default alone is no sweep.
        if role in series and others:
            series[role].setdefault(float(flags[of_flag]), []).append(value)
    return {role: dict(sorted(points.items())) for role, points in series.items()}


def _alone(defaults: list[tuple[str, dict[str, Any], float]], flag: str) -> dict[str, float]:
    roles = ("teacher",) if flag == "student_dim" else ("teacher", "student")
    values = {role: [value for each, _, value in defaults if each == role] for role in roles}
    return {role: float(np.mean(each)) for role, each in values.items() if each}


def _plot(series: dict[str, Points], levels: dict[str, float], cell: str, title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    for role, points in series.items():
        axis.plot(list(points), [np.mean(each) for each in points.values()], label=ROLES[role], color=COLORS[role])
        for x, each in points.items():
            axis.plot([x] * len(each), each, "o", color=COLORS[role], markersize=3)
    for role, level in levels.items():
        axis.axhline(level, label=ROLES[role], color=COLORS[role], linestyle="--", linewidth=1)
    axis.set_xscale("log")
    ticks = sorted({x for points in series.values() for x in points})
    axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axis.minorticks_off()
    axis.set(title=cell, xlabel=title, ylabel="validation MAP")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    with storage.atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
