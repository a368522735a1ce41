"""A metric against one setting, from the runs of a cell's sweeps."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.check_alike import check_alike
from pipelines.check_teacher import check_teacher
from pipelines.curves import COLORS
from pipelines.picture import picture
from pipelines.roles import ROLES
from pipelines.run_record import read_manifest, read_metrics
from pipelines.sweeps import DEFAULT
from rd_tf import run_directory
from rd_tf.storage import require

_TITLES = {
    "k": "K, length of the teacher's list",
    "position_temperature": "$\\lambda$, position_temperature",
    "discrepancy_sharpness": "$\\mu$, discrepancy_sharpness",
    "alpha": "$\\alpha$, weight of the distillation loss",
    "student_dim": "d of the student",
}
Points = dict[float, list[float]]


@dataclasses.dataclass(frozen=True)
class _Run:
    """Evidence of a run in `seed-N/<role>`."""

    path: Path
    manifest: dict[str, Any]
    map: float

    @property
    def role(self) -> str:
        return self.path.name

    @property
    def seed(self) -> str:
        return self.path.parent.name


def plot_sweeps(sweeps: Path, directory: Path) -> list[Path]:
    """Plots validation MAP against each flag that a cell's sweeps hold runs of; a dot a seed, a line the mean.

    Args:
        sweeps: `<results>/sweeps/<dataset>/<model>`.
        directory: gets `sweep-<dataset>-<model>-<flag>.png`.

    Returns:
        The pictures.

    Raises:
        InputError: the runs differ in more than one flag, or were distilled from different teachers.
    """
    defaults = _runs(sweeps / DEFAULT)
    pictures = []
    for flag, title in _TITLES.items():
        others = [run for path in sorted(sweeps.glob(f"{flag}=*")) for run in _runs(path)]
        # A default alone is no sweep.
        if not others:
            continue
        _check_together(defaults, others, _trained_with(flag))
        series = _series(flag, [*defaults, *others])
        if len(series["distilled"]) > 1:
            path = directory / f"sweep-{sweeps.parent.name}-{sweeps.name}-{flag}.png"
            _plot(series, _alone(defaults, flag), f"{sweeps.parent.name}/{sweeps.name}", title, path)
            pictures.append(path)
    return pictures


def _trained_with(flag: str) -> str:
    return "dim" if flag == "student_dim" else flag


def _runs(directory: Path) -> list[_Run]:
    return [
        _Run(
            path.parent,
            read_manifest(path.parent),
            float(read_metrics(path.parent, ["map"])["metrics"]["map"]),
        )
        for path in sorted(directory.glob("seed-*/*/" + run_directory.METRICS))
    ]


def _check_together(defaults: list[_Run], others: list[_Run], flag: str) -> None:
    teachers = {run.seed: run for run in defaults if run.role == "teacher"}
    first: dict[str, _Run] = {}
    for run in (*defaults, *others):
        other = first.setdefault(run.role, run)
        check_alike(run.path, run.manifest, other.path, other.manifest, but={"seed", flag})
        if run.role == "distilled" and run.seed in teachers:
            teacher = teachers[run.seed]
            check_teacher(run.path, run.manifest, teacher.path, teacher.manifest)


def _series(flag: str, runs: list[_Run]) -> dict[str, Points]:
    roles = ("student", "distilled") if flag == "student_dim" else ("distilled",)
    series: dict[str, Points] = {role: {} for role in roles}
    for run in runs:
        if run.role in series:
            name = _trained_with(flag)
            require(run.manifest, {f"flags.{name}": int | float}, run.path / run_directory.MANIFEST)
            x = float(run.manifest["flags"][name])
            series[run.role].setdefault(x, []).append(run.map)
    return {role: dict(sorted(points.items())) for role, points in series.items()}


def _alone(defaults: list[_Run], flag: str) -> dict[str, float]:
    roles = ("teacher",) if flag == "student_dim" else ("teacher", "student")
    values = {role: [run.map for run in defaults if run.role == role] for role in roles}
    return {role: float(np.mean(each)) for role, each in values.items() if each}


def _plot(series: dict[str, Points], levels: dict[str, float], cell: str, title: str, path: Path) -> None:
    with picture(path, figsize=(4.5, 3.2)) as axis:
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
