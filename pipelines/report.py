"""Numbers, tables and pictures as the pipelines show them, and the report of one distillation."""

import contextlib
import dataclasses
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.records import (
    COLUMNS,
    HEADS,
    PER_USER_METRICS,
    ROLES,
    keep_evidence,
    read_history,
    read_manifest,
    read_metrics,
    read_per_user,
)
from rd_tf import run_directory
from rd_tf.evaluation.held_out import left_out_line
from rd_tf.evaluation.metrics import PairedComparison, compare_paired
from rd_tf.flag_definitions import Protocol
from rd_tf.storage import InputError, atomic_file, write_json

if TYPE_CHECKING:
    from pipelines.choose import Choice

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
# The same in a sentence.
_BASELINE_WORDS = {"popularity": "popularity", "successors": "what follows the last item"}
# A p-value below it is no noise.
_LEVEL, _STRICT = 0.05, 0.01
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
        with atomic_file(path) as temporary:
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
        dim: d; None of a teacher that is no ranker alone.
        parameters: how many.
        seconds: of training, mean over the seeds.
    """

    metrics: dict[str, float]
    by_seed: dict[str, dict[str, float]]
    model: str
    dim: int | None
    parameters: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class AgainstTeacher:
    """The student distilled against one of the teachers whose fusion it learned from.

    Attributes:
        metrics: of the teacher, means over the seeds.
        gains: the student's mean difference of each of the paper's metrics, in percent of the teacher's.
        p: p-value of the paired t-test over users of each.
        above: in how many of the paper's metrics the student is above it with p < .01.
    """

    metrics: dict[str, float]
    gains: dict[str, float]
    p: dict[str, float]
    above: int


@dataclasses.dataclass(frozen=True)
class Report:
    """What a distillation comes to; `report.json` holds these fields.

    Attributes:
        split: that all were evaluated on.
        counts: see `rd_tf.evaluation.held_out.HeldOut.counts`.
        seeds: of the students.
        roles: in the order of `ROLES`; no teacher where its lists came from outside.
        comparison: the average precisions of the student distilled against those of the student alone, a pair a user,
            whose values are averaged over the seeds.
        baselines: name in `BASELINE_TITLES` -> metrics, of the rankers that learn nothing.
        export: where the export is.
        choice: the fields of `pipelines.choose.Choice`, where the teacher was chosen.
        teachers: name -> the student against it, of the teachers that were fused.
    """

    split: str
    counts: dict[str, int]
    seeds: list[int]
    roles: dict[str, RoleReport]
    comparison: PairedComparison
    baselines: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    export: str = ""
    choice: dict[str, Any] | None = None
    teachers: dict[str, "AgainstTeacher"] = dataclasses.field(default_factory=dict)


def make_report(
    root: Path,
    runs: dict[int, dict[str, Path]],
    baselines: dict[str, dict[str, float]],
    export_path: str,
    results: str,
    all_metrics: bool,
    choice: "Choice | None" = None,
) -> dict[str, Any]:
    """Collects metrics, prints the tables, writes `report.json` and, if asked, copies the evidence.

    Args:
        root: directory of the runs; gets `report.json`.
        runs: seed -> role -> run directory.
        baselines: name in `BASELINE_TITLES` -> metrics.
        export_path: where the export is.
        results: directory for the copies; empty for none.
        all_metrics: whether to print the metrics that the paper has not, too.
        choice: how the teacher was chosen, with --teacher=auto.

    Returns:
        The fields of `Report`, as JSON values.
    """
    chosen = dataclasses.asdict(choice) if choice else None
    report = dataclasses.replace(collect(runs), baselines=baselines, export=export_path, choice=chosen)
    values = as_json(report)
    write_json(root / "report.json", values)
    show(report, all_metrics)
    print(f"TensorBoard   tensorboard --logdir={root}")
    print(f"export        {export_path}")
    if results:
        copy_evidence(Path(results), runs, values)
        print(f"results       {results}")
    return values


def as_json(report: Report) -> dict[str, Any]:
    """The fields as JSON values: of `comparison`, None where there is no value."""
    comparison = dataclasses.asdict(report.comparison)
    known = {name: None if math.isnan(value) else value for name, value in comparison.items()}
    return {**dataclasses.asdict(report), "comparison": known}


def collect(runs: dict[int, dict[str, Path]]) -> Report:
    """Reads metrics and sizes of all runs, and compares the students.

    Raises:
        InputError: a file is missing or damaged, or the students were evaluated on different users.
    """
    # Of lists from outside nobody knows how their teacher ranks.
    present = [role for role in ROLES if role in next(iter(runs.values()))]
    found = {role: {seed: read_metrics(paths[role], ["map"]) for seed, paths in runs.items()} for role in present}
    # A given teacher may have been trained with other cutoffs.
    every = [one["metrics"] for metrics in found.values() for one in metrics.values()]
    names = [name for name in every[0] if all(name in one for one in every)]
    roles = {}
    for role, metrics in found.items():
        described = [_described(paths[role], metrics[seed]) for seed, paths in runs.items()]
        roles[role] = RoleReport(
            metrics={name: float(np.mean([m["metrics"][name] for m in metrics.values()])) for name in names},
            by_seed={str(seed): m["metrics"] for seed, m in metrics.items()},
            **{**described[0], "seconds": float(np.mean([one["seconds"] for one in described]))},
        )
    some = next(iter(found["distilled"].values()))
    teachers = {
        role.removeprefix("teacher-"): _against_teacher(runs, role)
        for role in next(iter(runs.values()))
        if role.startswith("teacher-")
    }
    return Report(some["split"], some["counts"], list(runs), roles, _compare_students(runs), teachers=teachers)


def _against_teacher(runs: dict[int, dict[str, Path]], role: str) -> AgainstTeacher:
    found = [read_metrics(paths[role], ["map"])["metrics"] for paths in runs.values()]
    columns = [name for name in PER_USER_METRICS if name == "ap" or all(name in one for one in found)]
    tables = {
        name: np.mean([read_per_user(paths[name], columns)[columns] for paths in runs.values()], axis=0)
        for name in ("distilled", role)
    }
    compared = {
        name: compare_paired(tables["distilled"][:, place], tables[role][:, place])
        for place, name in enumerate(columns)
    }
    return AgainstTeacher(
        {name: float(np.mean([one[name] for one in found])) for name in found[0]},
        {name: one.percent for name, one in compared.items()},
        {name: one.t_p for name, one in compared.items()},
        sum(one.difference > 0 and one.t_p < _STRICT for one in compared.values()),
    )


def _described(directory: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """Model, dim, parameters and seconds of a run, or of a teacher that has no run of its own."""
    if "teacher" in metrics:
        return {"dim": None, **metrics["teacher"]}
    manifest = read_manifest(directory)
    return {
        **{name: manifest["flags"][name] for name in ("model", "dim")},
        "parameters": manifest["model"]["parameters"],
        "seconds": manifest["seconds"],
    }


def _compare_students(runs: dict[int, dict[str, Path]]) -> PairedComparison:
    tables = {
        role: [read_per_user(paths[role], ["ap"]) for paths in runs.values()] for role in ("student", "distilled")
    }
    first = next(iter(runs.values()))["student"]
    users = tables["student"][0]["user"]
    for role, found in tables.items():
        for table, paths in zip(found, runs.values(), strict=True):
            if not np.array_equal(table["user"], users):
                # Either may be the damaged one.
                raise InputError(f"{first} and {paths[role]} were evaluated on different users; train both again")
    means = {role: np.mean([table["ap"] for table in found], axis=0) for role, found in tables.items()}
    return compare_paired(means["distilled"], means["student"])


def show(report: Report, all_metrics: bool = False) -> None:
    """Prints the paper's metrics of all rankers, sizes and times of the models and, if asked, the other metrics."""
    console = Console(width=_WIDTH, highlight=False)
    if report.choice:
        _show_choice(console, report.choice)
    names = list(report.roles["distilled"].metrics)
    columns = {name: title for name, title in zip(COLUMNS, HEADS, strict=True) if name in names}
    rankers = {BASELINE_TITLES[name]: metrics for name, metrics in report.baselines.items()}
    rankers |= {ROLES[role]: found.metrics for role, found in report.roles.items()}
    alone, distilled = (report.roles[role].metrics for role in ("student", "distilled"))
    of = f"seed {report.seeds[0]}" if len(report.seeds) == 1 else f"mean of seeds {', '.join(map(str, report.seeds))}"
    table = _table("", *columns.values(), title=f"{report.split} split, {of}")
    for place, (title, metrics) in enumerate(rankers.items(), 1):
        ends = place in (len(report.baselines), len(rankers))
        table.add_row(title, *(short(metrics[name]) for name in columns), end_section=ends)
    table.add_row("distilled vs alone", *(_short_gain(distilled[name], alone[name]) for name in columns))
    console.print(table)
    sizes = _table("", "model", "d", "parameters", "of the teacher's", "training")
    teacher = report.roles.get("teacher")
    for role, found in report.roles.items():
        share = f"{100 * found.parameters / teacher.parameters:.1f} %" if teacher else ""
        sizes.add_row(
            ROLES[role], found.model, str(found.dim or ""), f"{found.parameters:,}", share, f"{found.seconds:.0f} s"
        )
    console.print(sizes)
    for name, against in report.teachers.items():
        print(
            textwrap.fill(
                f"Against the teacher {name} (MAP {short(against.metrics['map'])}) the student distilled is above in "
                f"{against.above} of {len(against.gains)} metrics with p < .01, MAP {percent(against.gains['ap'])} "
                f"(p {_p_equals(against.p['ap'])}).",
                _WIDTH,
            )
        )
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
    for sentences in (left_out_line(report.counts, Protocol.of(report.split).keeps_seen), "", *findings(report), ""):
        print(textwrap.fill(sentences, _WIDTH))


def _show_choice(console: Console, choice: dict[str, Any]) -> None:
    """What --teacher=auto tried, and what it took for which reason."""
    table = _table("", "MAP", "taken", title=f"{choice['split']} split: what was tried")
    best, taken = max(choice["candidates"].values(), key=lambda one: one["map"])["map"], choice["weights"]
    for name, found in choice["candidates"].items():
        share = f"{taken[name]:.2f}" if len(taken) > 1 and name in taken else "yes" if name in taken else ""
        table.add_row(f"teacher {name}", short(found["map"]), share)
    if len(taken) > 1:
        table.add_row("teachers fused", short(choice["quality"]), "yes", end_section=True)
    table.add_row("student alone", short(choice["alone"]), "" if choice["alpha"] else "yes")
    for trial in choice["trials"]:
        is_taken = choice["alpha"] and trial["alpha"] == choice["alpha"]
        is_taken = is_taken and trial["score_temperature"] == choice["score_temperature"]
        name = f"distilled, alpha {trial['alpha']:g}, tau {trial['score_temperature']:g}"
        table.add_row(name, short(trial["map"]), "yes" if is_taken else "")
    console.print(table)
    fused = ", ".join(f"{weight:.2f} {name}" for name, weight in taken.items())
    lines = [
        f"The teacher is {next(iter(taken))}, which no fusion was better than (MAP {short(best)})."
        if len(taken) == 1
        else f"The teacher is a fusion ({fused}), since it ranks better than each alone "
        f"(MAP {short(choice['quality'])} against {short(best)})."
    ]
    gained = max(trial["map"] for trial in choice["trials"])
    if choice["alpha"]:
        lines.append(f"Its lists help: MAP {short(gained)} against {short(choice['alone'])} of the student alone.")
    else:
        lines.append(
            f"Its lists do not help (MAP {short(gained)} against {short(choice['alone'])} of the student alone), so "
            "the student distilled is trained with alpha = 0, as the student alone is."
        )
    lines += [f"Left out: {name}, {reason}." for name, reason in choice["skipped"].items()]
    for line in lines:
        print(textwrap.fill(line, _WIDTH))
    print()


def findings(report: Report) -> list[str]:
    """What the table says in sentences, and what to do next where it says nothing good."""
    alone, distilled = (report.roles[role].metrics["map"] for role in ("student", "distilled"))
    teacher = report.roles["teacher"].metrics["map"] if "teacher" in report.roles else math.inf
    test = report.comparison
    found = [f"MAP of the student, distilled against alone: {short(distilled)} against {short(alone)}"]
    if math.isnan(test.t_p) or math.isnan(test.percent):
        found[0] += ", which is too little to test."
    else:
        found[0] += (
            f", {percent(test.percent)} (95 % interval {percent(test.percent_low)} to {percent(test.percent_high)}); "
            f"over {test.n:,} users, paired t-test p {_p_equals(test.t_p)}, Wilcoxon p {_p_equals(test.wilcoxon_p)}."
        )
    # A p of NaN, where nothing could be tested, is no evidence either.
    if not test.t_p < _LEVEL:
        found.append(
            "This difference is noise (p is not below .05): the two students may be equally good. Try other seeds "
            "(--seeds=0,1,2) or more --epochs before you prefer one."
        )
    elif test.difference < 0:
        found.append("Distillation makes this student worse. Try a smaller --alpha, or distil from a better teacher.")
    elif len(report.seeds) == 1:
        found.append("Whether other seeds gain as much, --seeds=0,1,2 tells.")
    if teacher < alone:
        found.append(
            f"The teacher ranks worse than the student alone (MAP {short(teacher)} against {short(alone)}), so its "
            "lists have little to teach. Train it for more epochs (--teacher_epochs), regularise it (--l2, --dropout) "
            "or make it smaller (--teacher_dim), until it is the better one."
        )
    for name, metrics in report.baselines.items():
        if metrics["map"] > distilled:
            found.append(
                f"Ranking by {_BASELINE_WORDS[name]}, which takes no training, is better than the student distilled "
                f"(MAP {short(metrics['map'])} against {short(distilled)}). Train for more --epochs, or with a larger "
                "--learning_rate or --student_dim."
            )
    return found


def _p_equals(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


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
            # What a teacher without a run of its own comes to is in the report.
            if "teacher" not in read_metrics(path):
                keep_evidence(path, results / f"seed-{seed}" / role, per_user=False)
    write_json(results / "report.json", report)
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
