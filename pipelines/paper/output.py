"""Everything that is shown of results/; python -m pipelines.paper.output writes it into README.md and docs/."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.paper.chains import DEFAULT, Cell
from pipelines.paper.tables import (
    SUMMARY,
    latex_tables,
    markdown_tables,
    read_summary,
    readme_table,
    report_tables,
    summarise,
    tuning_table,
)
from pipelines.records import (
    ROLES,
    check_alike,
    check_teacher,
    read_history,
    read_manifest,
    read_metrics,
)
from pipelines.report import COLORS, picture, replace_between
from rd_tf import command_line, run_directory
from rd_tf.storage import require, write_json, write_text

PLOTS = "plots"
ROOT = Path(__file__).parents[2]
RESULTS, PAGE, README = ROOT / "results", ROOT / "docs" / "reproduction.md", ROOT / "README.md"
# The flags of sweeps, as the plots name them.
_TITLES = {
    "k": "K, length of the teacher's list",
    "position_temperature": "$\\lambda$, position_temperature",
    "discrepancy_sharpness": "$\\mu$, discrepancy_sharpness",
    "alpha": "$\\alpha$, weight of the distillation loss",
    "student_dim": "d of the student",
}
# Value of the flag -> MAP of every seed.
Points = dict[float, list[float]]


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
        # With the cell's own value alone there is nothing to plot.
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


def write_output(results: Path, cells: list[Cell]) -> list[Path]:
    """Writes `summary.json`, `tables.md`, `tables.tex`, `significance.csv` and `plots/*.png`, and prints their names.

    Pictures of an earlier call that are not written again are removed.

    Args:
        results: directory of the evidence, which gets the files.
        cells: those to show, there or not.

    Raises:
        InputError: evidence that does not belong together.
    """
    summary = summarise(results, cells)
    written = [results / name for name in (SUMMARY, "tables.md", "tables.tex", "significance.csv")]
    write_json(written[0], summary)
    write_text(written[1], markdown_tables(summary))
    write_text(written[2], latex_tables(summary))
    write_text(written[3], significance_csv(summary))
    pictures = [plot_cells(summary, results / PLOTS / "map.png")]
    for sweeps in sorted(path for path in results.glob("sweeps/*/*") if path.is_dir()):
        learning = f"learning-{sweeps.parent.name}-{sweeps.name}.png"
        pictures.append(plot_learning(sweeps, results / PLOTS / learning))
        pictures += plot_sweeps(sweeps, results / PLOTS)
    written += [path for path in pictures if path]
    # docs/reproduction.md shows every picture of the folder, so old ones must go.
    for path in set((results / PLOTS).glob("*.png")) - set(written):
        path.unlink()
    for path in written:
        print(f"wrote {path}")
    return written


def significance_csv(summary: dict[str, Any]) -> str:
    """All tests, a line a cell, comparison and metric; empty where there is no value."""
    rows = [
        {"cell": name, "distilled_against": reference, "metric": metric, **test}
        for name, cell in summary["cells"].items()
        for reference, tests in (cell["comparisons"] if cell else {}).items()
        for metric, test in tests.items()
    ]
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def write_pages() -> None:
    """Replaces the tables and plots of README.md and docs/reproduction.md by what results/ holds."""
    for path, fill in ((README, fill_readme), (PAGE, fill_reproduction)):
        write_text(path, fill(path.read_text(encoding="utf-8"), RESULTS))
        print(f"wrote {path}")


def fill_readme(text: str, results: Path) -> str:
    """Puts the small table between the README's markers; arguments and errors as in `fill_reproduction`."""
    return replace_between(text, "results", readme_table(results), README.name)


def fill_reproduction(page: str, results: Path) -> str:
    """Puts the tables and plots into docs/reproduction.md.

    Args:
        page: its text.
        results: holds `paper`, which `pipelines.paper` has filled, `tuning` and folders with a `report.json`; all may
            be missing.

    Raises:
        InputError: a marker is missing.
    """
    summary = read_summary(results / "paper")
    tables = markdown_tables(summary) if any(summary["cells"].values()) else "No cell has been run yet.\n"
    parts = {
        "tables": tables,
        "reports": report_tables(results) or "No other run has been kept.\n",
        "plots": _plots(results / "paper"),
        "tuning": tuning_table(results / "tuning"),
    }
    for name, text in parts.items():
        page = replace_between(page, name, f"\n{text}", "docs/reproduction.md")
    return page


def _plots(results: Path) -> str:
    pictures = sorted((results / PLOTS).glob("*.png"))
    links = [f"![{path.stem}]({os.path.relpath(path, PAGE.parent)})\n" for path in pictures]
    return "\n".join(links) or "No plot has been drawn yet.\n"


if __name__ == "__main__":
    command_line.run(write_pages)
