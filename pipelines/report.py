"""Numbers, tables and pictures as the pipelines show them, and the report of one distillation."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipelines.records import ROLES, keep_evidence, read_history, read_manifest, read_metrics
from rd_tf import run_directory, storage
from rd_tf.errors import InputError

_PANELS = (
    ("train/ranking_loss", "ranking loss"),
    ("train/distillation_loss", "distillation loss"),
    ("train/mean_weight", "mean weight of a teacher's item"),
    ("train/zero_weight_share", "share of weights at zero"),
    ("distillation/overlap", "overlap@K of student's and teacher's lists"),
    ("validation/map", "validation MAP"),
)
COLORS = {"teacher": "#4878a8", "student": "#b0b0b0", "distilled": "#d1603d"}


def short(value: float) -> str:
    """Four digits without the leading zero: .0951."""
    return f"{value:.4f}".removeprefix("0")


def with_deviation(metric: dict[str, Any]) -> str:
    """A mean with the deviation over seeds, where there is one: .0951 ± .0003."""
    return short(metric["mean"]) + (f" ± {short(metric['std'])}" if metric["std"] is not None else "")


def percent(value: float | None) -> str:
    """A signed difference: +3.0 %."""
    # Without "-0.0".
    return "" if value is None else f"{round(value, 1) + 0.0:+.1f} %"


def gain(value: float, reference: float) -> str:
    """What a value is above another: +9.4 %; nothing where the other is 0."""
    return percent(100 * (value / reference - 1) if reference else None)


def size(parameters: int, teacher: int) -> str:
    """Parameters, and their share of the teacher's: 2,794,102 (50.0 %)."""
    return f"{parameters:,} ({100 * parameters / teacher:.1f} %)"


def p_text(value: float | None) -> str:
    """A p-value: .013, or < .001."""
    if value is None:
        return "n/a"
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def stars(p: float) -> str:
    """** below .01, * below .05."""
    return "**" if p < 0.01 else "*" if p < 0.05 else ""


def seeds_text(seeds: list[int]) -> str:
    """seed 0, or 3 seeds (0, 1, 2)."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"


def row(*cells: Any) -> str:
    """One row; an empty cell is one space."""
    return "|" + "".join(f" {cell} |" if cell != "" else " |" for cell in cells)


def head(*cells: str) -> list[str]:
    """The heading and the line below it."""
    return [row(*cells), "|" + "---|" * len(cells)]


def replace_between(text: str, name: str, between: str, page: str) -> str:
    """Puts text between the markers `<!-- name: begin -->` and `<!-- name: end -->`.

    Args:
        text: the page.
        name: of the markers.
        between: what belongs between them.
        page: the page's name, for the message.

    Raises:
        InputError: a marker is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise InputError(f"{page} lacks the markers {begin} and {end}; put them where the text belongs")
    return f"{text.split(begin)[0]}{begin}\n{between}\n{text[text.index(end) :]}"


@contextlib.contextmanager
def picture(path: Path, *shape: int, **options: Any) -> Iterator[Any]:
    """Yields axes to draw on; the picture appears, whole or not at all, when the block ends without an error.

    Args:
        path: the picture.
        *shape: rows and columns of axes; none for one of them.
        **options: others of `matplotlib.pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(*shape, layout="constrained", **options)
    try:
        yield axes
        with storage.atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=110)
    finally:
        plt.close(figure)


def make_report(root: Path, runs: dict[int, dict[str, Path]], export_path: str, results: str) -> dict[str, Any]:
    """Collects metrics, prints the table, writes `report.json` and, if asked, copies the evidence.

    Args:
        root: directory of the runs; gets `report.json`.
        runs: seed -> role -> run directory.
        export_path: where the export is.
        results: directory for the copies; empty for none.

    Returns:
        What `report.json` holds: the mean of every metric over the seeds by role, each seed's metrics, sizes, seconds.
    """
    report = collect(runs)
    report["export"] = export_path
    storage.write_json(root / "report.json", report)
    show(report)
    print(f"TensorBoard   tensorboard --logdir={root}")
    print(f"export        {export_path}")
    if results:
        copy_evidence(Path(results), runs, report)
        print(f"results       {results}")
    return report


def collect(runs: dict[int, dict[str, Path]]) -> dict[str, Any]:
    """Reads metrics and sizes of all runs."""
    roles: dict[str, Any] = {}
    found = {role: {seed: read_metrics(paths[role]) for seed, paths in runs.items()} for role in ROLES}
    # A given teacher may have been trained with other cutoffs.
    every = [one["metrics"] for metrics in found.values() for one in metrics.values()]
    names = [name for name in every[0] if all(name in one for one in every)]
    for role, metrics in found.items():
        manifests = {seed: read_manifest(paths[role]) for seed, paths in runs.items()}
        first = next(iter(manifests.values()))
        roles[role] = {
            "metrics": {name: float(np.mean([m["metrics"][name] for m in metrics.values()])) for name in names},
            "by_seed": {str(seed): m["metrics"] for seed, m in metrics.items()},
            "model": first["flags"]["model"],
            "dim": first["flags"]["dim"],
            "parameters": first["model"]["parameters"],
            "seconds": float(np.mean([m["seconds"] for m in manifests.values()])),
        }
    some = next(iter(found["distilled"].values()))
    return {"split": some["split"], "counts": some["counts"], "seeds": list(runs), "roles": roles}


def show(report: dict[str, Any]) -> None:
    """Prints the table."""
    roles = report["roles"]
    seeds = ", ".join(map(str, report["seeds"]))
    table = Table(
        title=f"{report['split']} split, seed {seeds}"
        if len(report["seeds"]) == 1
        else f"{report['split']} split, mean of seeds {seeds}"
    )
    table.add_column("")
    for role, title in ROLES.items():
        table.add_column(f"{title}\n{roles[role]['model']}, d = {roles[role]['dim']}", justify="right")
    table.add_column("distilled vs\nstudent alone", justify="right")
    for name in roles["teacher"]["metrics"]:
        values = [roles[role]["metrics"][name] for role in ROLES]
        table.add_row(
            name, *(f"{value:.4f}" for value in values), gain(values[2], values[1]), end_section=name == "map"
        )
    sizes = [roles[role]["parameters"] for role in ROLES]
    table.add_row("parameters", *(f"{size:,}" for size in sizes), "")
    table.add_row("of the teacher's", *(f"{100 * size / sizes[0]:.1f} %" for size in sizes), "")
    table.add_row("training, s", *(f"{roles[role]['seconds']:.0f}" for role in ROLES), "")
    Console(width=110, highlight=False).print(table)
    counts = report["counts"]
    print(", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in counts.items()))


def copy_evidence(results: Path, runs: dict[int, dict[str, Path]], report: dict[str, Any]) -> None:
    """Copies flags, metrics, history, log and manifest of every run, and writes the report and the learning curves."""
    for seed, paths in runs.items():
        for role, path in paths.items():
            keep_evidence(path, results / f"seed-{seed}" / role, per_user=False)
    storage.write_json(results / "report.json", report)
    plot_curves(results, report["seeds"][0])


def plot_curves(results: Path, seed: int) -> Path | None:
    """Plots what the histories of one seed hold, a panel a quantity.

    Args:
        results: directory with `seed-<seed>/<role>/history.csv`; gets `curves.png`.
        seed: whose runs.

    Returns:
        The picture's path, or None when no history has anything to show.
    """
    histories = {
        role: read_history(results / f"seed-{seed}" / role)
        for role in COLORS
        if (results / f"seed-{seed}" / role / run_directory.HISTORY).is_file()
    }
    panels = []
    for prefix, title in _PANELS:
        found = {
            role: (history["epoch"], history[name])
            for role, history in histories.items()
            for name in history.columns
            if name.startswith(prefix)
        }
        if found:
            panels.append((title, found))
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    path = results / "curves.png"
    with picture(path, rows, 2, figsize=(9, 2.4 * rows), squeeze=False) as axes:
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, (title, found) in zip(axes.flat, panels, strict=False):
            for role, (epochs, values) in found.items():
                known = values.notna()
                axis.plot(
                    epochs[known],
                    values[known],
                    label=role,
                    color=COLORS[role],
                    marker="." if known.sum() < 12 else None,
                )
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("epoch", fontsize=8)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
        axes.flat[0].legend(fontsize=8)
    return path
