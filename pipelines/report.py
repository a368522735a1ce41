"""Numbers, tables and pictures as the pipelines show them, and the report of one distillation."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.records import COLUMNS, HEADS, ROLES, keep_evidence, read_history, read_manifest, read_metrics
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
# Ranker that learns nothing -> title; in the order of the table.
BASELINE_TITLES = {"popularity": "most popular", "successors": "last item's successors"}
# Characters of a line in a terminal.
_WIDTH = 80
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


@dataclasses.dataclass(frozen=True)
class RoleReport:
    """A role's model and how well it ranks.

    Attributes:
        metrics: means over the seeds.
        by_seed: seed, as JSON's keys are -> metrics.
        model: class of the model, as the flag names it.
        dim: d.
        parameters: how many.
        seconds: of training, mean over the seeds.
    """

    metrics: dict[str, float]
    by_seed: dict[str, dict[str, float]]
    model: str
    dim: int
    parameters: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What a distillation comes to; `report.json` holds these fields.

    Attributes:
        split: that all were evaluated on.
        counts: see `rd_tf.evaluation.held_out.HeldOut.counts`.
        seeds: of the students.
        roles: in the order of `ROLES`.
        baselines: name in `BASELINE_TITLES` -> metrics, of the rankers that learn nothing.
        export: where the export is.
    """

    split: str
    counts: dict[str, int]
    seeds: list[int]
    roles: dict[str, RoleReport]
    baselines: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    export: str = ""


def make_report(
    root: Path,
    runs: dict[int, dict[str, Path]],
    baselines: dict[str, dict[str, float]],
    export_path: str,
    results: str,
    all_metrics: bool,
) -> dict[str, Any]:
    """Collects metrics, prints the tables, writes `report.json` and, if asked, copies the evidence.

    Args:
        root: directory of the runs; gets `report.json`.
        runs: seed -> role -> run directory.
        baselines: name in `BASELINE_TITLES` -> metrics.
        export_path: where the export is.
        results: directory for the copies; empty for none.
        all_metrics: whether to print the metrics that the paper has not, too.

    Returns:
        The fields of `Report`, as JSON values.
    """
    report = dataclasses.replace(collect(runs), baselines=baselines, export=export_path)
    values = dataclasses.asdict(report)
    storage.write_json(root / "report.json", values)
    show(report, all_metrics)
    print(f"TensorBoard   tensorboard --logdir={root}")
    print(f"export        {export_path}")
    if results:
        copy_evidence(Path(results), runs, values)
        print(f"results       {results}")
    return values


def collect(runs: dict[int, dict[str, Path]]) -> Report:
    """Reads metrics and sizes of all runs."""
    found = {role: {seed: read_metrics(paths[role]) for seed, paths in runs.items()} for role in ROLES}
    # A given teacher may have been trained with other cutoffs.
    every = [one["metrics"] for metrics in found.values() for one in metrics.values()]
    names = [name for name in every[0] if all(name in one for one in every)]
    roles = {}
    for role, metrics in found.items():
        manifests = [read_manifest(paths[role]) for paths in runs.values()]
        roles[role] = RoleReport(
            metrics={name: float(np.mean([m["metrics"][name] for m in metrics.values()])) for name in names},
            by_seed={str(seed): m["metrics"] for seed, m in metrics.items()},
            model=manifests[0]["flags"]["model"],
            dim=manifests[0]["flags"]["dim"],
            parameters=manifests[0]["model"]["parameters"],
            seconds=float(np.mean([manifest["seconds"] for manifest in manifests])),
        )
    some = next(iter(found["distilled"].values()))
    return Report(some["split"], some["counts"], list(runs), roles)


def show(report: Report, all_metrics: bool = False) -> None:
    """Prints the paper's metrics of all rankers, sizes and times of the models and, if asked, the other metrics."""
    console = Console(width=_WIDTH, highlight=False)
    names = list(report.roles["teacher"].metrics)
    columns = {name: title for name, title in zip(COLUMNS, HEADS, strict=True) if name in names}
    rankers = {BASELINE_TITLES[name]: metrics for name, metrics in report.baselines.items()}
    rankers |= {title: report.roles[role].metrics for role, title in ROLES.items()}
    alone, distilled = (report.roles[role].metrics for role in ("student", "distilled"))
    of = f"seed {report.seeds[0]}" if len(report.seeds) == 1 else f"mean of seeds {', '.join(map(str, report.seeds))}"
    table = _table("", *columns.values(), title=f"{report.split} split, {of}")
    for place, (title, metrics) in enumerate(rankers.items(), 1):
        ends = place in (len(report.baselines), len(rankers))
        table.add_row(title, *(short(metrics[name]) for name in columns), end_section=ends)
    table.add_row("distilled vs alone", *(_short_gain(distilled[name], alone[name]) for name in columns))
    console.print(table)
    sizes = _table("", "model", "d", "parameters", "of the teacher's", "training")
    for role, title in ROLES.items():
        found = report.roles[role]
        share = f"{100 * found.parameters / report.roles['teacher'].parameters:.1f} %"
        sizes.add_row(title, found.model, str(found.dim), f"{found.parameters:,}", share, f"{found.seconds:.0f} s")
    console.print(sizes)
    others = [name for name in names if name not in columns]
    if all_metrics:
        table = _table("", *("\n".join(title.rsplit(" ", 1)) for title in rankers), "gain")
        for name in others:
            values = (short(metrics[name]) if name in metrics else "" for metrics in rankers.values())
            table.add_row(name, *values, _short_gain(distilled[name], alone[name]))
        console.print(table)
    print("P = precision, N = nDCG as the paper's authors compute it.")
    if others and not all_metrics:
        print(f"--all_metrics shows {len(others)} others.")
    print(", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in report.counts.items()))


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    return table


def _short_gain(value: float, reference: float) -> str:
    """As `gain`, but a large one takes no more room: +9.4 %, +140 %, x 25."""
    ratio = value / reference if reference else 1.0
    if ratio >= 10:
        return f"x {ratio:.2g}"
    return gain(value, reference) if ratio < 1.9995 else f"{100 * (ratio - 1):+.0f} %"


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
