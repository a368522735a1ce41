"""The paper's tables, computed from results/ alone, in Markdown and LaTeX, ours beside the published."""

import csv
import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.paper.chains import Cell
from pipelines.paper.efficiency import read_efficiency
from pipelines.records import (
    COLUMNS,
    HEADS,
    PER_USER_METRICS,
    REFERENCES,
    ROLES,
    check_alike,
    check_teacher,
    is_complete,
    read_manifest,
    read_metrics,
    read_per_user,
)
from pipelines.report import gain, head, p_text, percent, row, seeds_text, short, size, stars, with_deviation
from pipelines.tune import TRIALS
from rd_tf import run_directory
from rd_tf.command_line import default_flags, flag_lines, parse
from rd_tf.evaluation.held_out import left_out_line
from rd_tf.evaluation.metrics import compare_paired, holm
from rd_tf.run_directory import NO_PART_OF_THE_RESULT
from rd_tf.storage import InputError, read_json
from rd_tf.train import train

SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class CellResults:
    """The evidence of all seeds of a cell.

    Attributes:
        seeds: those with all three roles, ascending; never none.
        metrics: role -> seed -> what the run's `metrics.json` holds.
        manifests: role -> seed -> the run's manifest.
        users: `[users] int32`, the evaluated users.
        per_user: role -> `[seeds, users, metrics] float64`, metrics in the order of `PER_USER_METRICS`.
    """

    seeds: list[int]
    metrics: dict[str, dict[int, Any]]
    manifests: dict[str, dict[int, Any]]
    users: np.ndarray
    per_user: dict[str, np.ndarray]


def read_cell(directory: Path) -> CellResults | None:
    """Reads `seed-N/<role>/` below a cell's folder; None where no seed has all three roles.

    Raises:
        InputError: the seeds are of different splits, settings, data or users, or a seed's models do not
            belong together.
    """
    seeds = sorted(
        int(path.name.removeprefix("seed-"))
        for path in directory.glob("seed-*")
        if path.name.removeprefix("seed-").isdecimal() and all(is_complete(path / role, True) for role in ROLES)
    )
    if not seeds:
        return None
    where = {role: {seed: directory / f"seed-{seed}" / role for seed in seeds} for role in ROLES}
    manifests = {role: {seed: read_manifest(path) for seed, path in paths.items()} for role, paths in where.items()}
    _check_together(where, manifests)
    tables = {role: [read_per_user(path) for path in paths.values()] for role, paths in where.items()}
    users = tables["teacher"][0]["user"].to_numpy()
    if any(not np.array_equal(table["user"], users) for found in tables.values() for table in found):
        raise InputError(f"{directory}: the runs were evaluated on different users; train one of them again")
    names = list(PER_USER_METRICS)
    return CellResults(
        seeds=seeds,
        metrics={
            role: {seed: read_metrics(path, COLUMNS) for seed, path in paths.items()} for role, paths in where.items()
        },
        manifests=manifests,
        users=users,
        per_user={
            role: np.stack([table[names].to_numpy(np.float64) for table in found]) for role, found in tables.items()
        },
    )


def _check_together(where: dict[str, dict[int, Path]], manifests: dict[str, dict[int, Any]]) -> None:
    for role, paths in where.items():
        first = next(iter(paths))
        for seed, path in paths.items():
            check_alike(path, manifests[role][seed], paths[first], manifests[role][first], but={"seed"})
    for seed, path in where["distilled"].items():
        distilled = manifests["distilled"][seed]
        # --distilled_epochs and --distilled_dropout may give the distilled student other values.
        own = {"teacher", "epochs", "dropout"}
        check_alike(path, distilled, where["student"][seed], manifests["student"][seed], but=own)
        check_teacher(path, distilled, where["teacher"][seed], manifests["teacher"][seed])


def summarise(results: Path, cells: list[Cell]) -> dict[str, Any]:
    """Computes means, deviations over seeds, tests and gains of every cell.

    Args:
        results: directory of the evidence.
        cells: those to show, there or not; others that results hold come after them.

    Returns:
        JSON values: `split`, and `cells` by name; a cell without evidence is None. Of the others: `seeds`, `users`,
        `counts` (as of `rd_tf.evaluation.held_out.HeldOut`), `roles` (role -> dim, parameters, seconds of training,
        `metrics` -> mean, std (over seeds, None for one), by_seed), `comparisons` ("student" or "teacher" -> metric ->
        what `compare_paired` finds over users, whose values are averaged over seeds, with `t_holm` and `wilcoxon_holm`,
        corrected over the cell's 7 metrics x 2 comparisons; and `seeds_n`, `seeds_t_p` of a paired t-test over the
        seeds' means), `efficiency`, None where nobody has measured these models.

    Raises:
        InputError: evidence that does not belong together.
    """
    names = [cell.name for cell in cells]
    found = (path.parent for path in sorted(results.glob("*/*/seed-*")) if path.is_dir())
    names += [name for name in dict.fromkeys(f"{path.parent.name}/{path.name}" for path in found) if name not in names]
    cell_results = {name: read_cell(results / name) for name in names}
    splits = {
        name: next(iter(found.manifests["teacher"].values()))["split"] for name, found in cell_results.items() if found
    }
    if len(set(splits.values())) > 1:
        raise InputError(f"{results} mixes splits ({splits}); keep one split in a directory")
    return {
        "split": next(iter(splits.values()), None),
        "cells": {
            name: None if found is None else _cell(found, read_efficiency(results / name))
            for name, found in cell_results.items()
        },
    }


def _cell(found: CellResults, measured: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "seeds": found.seeds,
        "users": len(found.users),
        "counts": next(iter(found.metrics["distilled"].values()))["counts"],
        "roles": {role: _role(found, role) for role in ROLES},
        "comparisons": _comparisons(found),
        "efficiency": measured,
    }


def _role(found: CellResults, role: str) -> dict[str, Any]:
    manifests = list(found.manifests[role].values())
    values = {
        column: {seed: float(each["metrics"][column]) for seed, each in found.metrics[role].items()}
        for column in COLUMNS
    }
    return {
        "dim": manifests[0]["flags"]["dim"],
        "parameters": manifests[0]["model"]["parameters"],
        "seconds": float(np.mean([manifest["seconds"] for manifest in manifests])),
        "metrics": {
            column: {
                "mean": float(np.mean(list(by_seed.values()))),
                "std": float(np.std(list(by_seed.values()), ddof=1)) if len(by_seed) > 1 else None,
                "by_seed": {str(seed): value for seed, value in by_seed.items()},
            }
            for column, by_seed in values.items()
        },
    }


def _comparisons(found: CellResults) -> dict[str, dict[str, Any]]:
    over_users = {role: values.mean(axis=0) for role, values in found.per_user.items()}
    over_seeds = {role: values.mean(axis=1) for role, values in found.per_user.items()}
    tests = {}
    for reference in REFERENCES:
        for index, column in enumerate(COLUMNS):
            of_users = compare_paired(over_users["distilled"][:, index], over_users[reference][:, index])
            of_seeds = compare_paired(over_seeds["distilled"][:, index], over_seeds[reference][:, index])
            seeds = {"seeds_n": of_seeds.n, "seeds_t_p": of_seeds.t_p}
            tests[reference, column] = {**dataclasses.asdict(of_users), **seeds}
    for name in ("t", "wilcoxon"):
        corrected = holm(np.array([np.nan_to_num(test[f"{name}_p"], nan=1.0) for test in tests.values()]))
        for test, value in zip(tests.values(), corrected, strict=True):
            test[f"{name}_holm"] = float(value)
    return {
        reference: {
            column: {key: _json(value) for key, value in tests[reference, column].items()} for column in COLUMNS
        }
        for reference in REFERENCES
    }


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def cells_by_dataset(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Dataset -> model -> what `summarise` has of the cell, None where nothing; all in the summary's order."""
    found: dict[str, dict[str, Any]] = {}
    for name, cell in summary["cells"].items():
        dataset, model = name.split("/")
        found.setdefault(dataset, {})[model] = cell
    return found


def read_summary(directory: Path) -> dict[str, Any]:
    """What `summarise` returned when `pipelines.paper` wrote `summary.json`; no cells where it is missing."""
    path = directory / SUMMARY
    return dict(read_json(path)) if path.is_file() else {"cells": {}}


# Effectiveness, a value a column. Folder below results/ -> row by role.
PUBLISHED = {
    "gowalla/fossil": {
        "teacher": (0.1299, 0.1062, 0.0791, 0.1429, 0.1270, 0.1140, 0.0866),
        "student": (0.1217, 0.0995, 0.0739, 0.1335, 0.1185, 0.1060, 0.0792),
        "distilled": (0.1355, 0.1096, 0.0808, 0.1490, 0.1314, 0.1172, 0.0874),
    },
    "gowalla/caser": {
        "teacher": (0.1408, 0.1149, 0.0856, 0.1546, 0.1376, 0.1251, 0.0958),
        "student": (0.1333, 0.1094, 0.0818, 0.1456, 0.1304, 0.1188, 0.0919),
        "distilled": (0.1458, 0.1183, 0.0878, 0.1603, 0.1423, 0.1283, 0.0969),
    },
    "foursquare/fossil": {
        "teacher": (0.0859, 0.0630, 0.0420, 0.1182, 0.1085, 0.1011, 0.0891),
        "student": (0.0766, 0.0556, 0.0355, 0.1079, 0.0985, 0.0911, 0.0780),
        "distilled": (0.0877, 0.0648, 0.0430, 0.1203, 0.1102, 0.1023, 0.0901),
    },
    "foursquare/caser": {
        "teacher": (0.0860, 0.0650, 0.0438, 0.1182, 0.1105, 0.1041, 0.0941),
        "student": (0.0830, 0.0621, 0.0413, 0.1134, 0.1051, 0.0986, 0.0874),
        "distilled": (0.0923, 0.0671, 0.0444, 0.1261, 0.1155, 0.1076, 0.0952),
    },
}
# Datasets whose check-ins are the very ones of the paper; elsewhere only gains can be held against each other.
SAME_DATA = frozenset({"gowalla"})
# Parameters in millions, teacher and student.
PARAMETERS = {
    "gowalla/fossil": (1.48, 0.64),
    "gowalla/caser": (5.58, 2.79),
    "foursquare/fossil": (1.01, 0.54),
    "foursquare/caser": (4.06, 1.64),
}
# Seconds on the authors' CPU for one list for every user, teacher and student.
CPU_SECONDS = {
    "gowalla/fossil": (9.32, 4.99),
    "gowalla/caser": (38.58, 18.63),
    "foursquare/fossil": (6.35, 3.86),
    "foursquare/caser": (23.89, 11.65),
}


LEGEND = (
    "Mean ± sample standard deviation over the seeds. \\*\\* p < .01, \\* p < .05: paired t-test over the users, whose "
    "values are averaged over the seeds, Holm-corrected over a model's 7 metrics and 2 comparisons; it says that these "
    "trained models differ for users such as these, not that other seeds would."
)
_OTHER_DATA = (
    "The check-ins are not the paper's, so only the gains can be held against the published ones, not the values."
)
# The paper's names of the roles, in its order.
_ROWS = {"teacher": "T", "distilled": "RD", "student": "S"}
# Flags that no row of the tuning table names: they are the same in all, or change no result.
_NOT_SHOWN = {*NO_PART_OF_THE_RESULT, "split", "validate_every", "model", "epochs", "seed"}
# Folder below results/ -> heading, in the order of the tables.
# Folder of a report -> heading: with the best recipe, in the README too.
_BEST = {
    "gowalla/best": "Gowalla, Caser",
    "gowalla/best_fossil": "Gowalla, Fossil",
    "gowalla/best_small": "Gowalla, Caser, d = 9",
    "foursquare/best": "Foursquare, Caser",
    "auto/gowalla_raw": "SNAP's raw Gowalla, Caser",
    "quickstart": "`make quickstart`, Caser",
}
# With the paper's settings.
_OTHERS = {
    "gowalla/caser": "Gowalla, Caser, paper's settings",
    "unseen/gowalla_raw_subset": "SNAP's raw Gowalla, the rows of the table above, Caser, paper's settings",
    "unseen/quickstart": "`make quickstart`'s world, Caser, paper's settings",
    "unseen/gowalla_raw": "SNAP's raw Gowalla, other rows, Caser, paper's settings",
    "unseen/world": "Built-in world of 12,000 users, Caser, paper's settings",
    "unseen/world_small": "Built-in world of 1,000 users, Caser, paper's settings",
}
# Metric -> heading of the README's columns.
_README_COLUMNS = {"map": "MAP", "precision@3": "P@3"}


def effectiveness_table(dataset: str, cells: dict[str, Any]) -> str:
    """Every model's three roles, and what distillation gains, the published values beside them.

    Args:
        dataset: its name.
        cells: model -> cell of the summary, None where there are no results.

    Returns:
        The table under its heading.
    """
    lines = [f"### {dataset.capitalize()}", ""]
    if dataset not in SAME_DATA and any(f"{dataset}/{model}" in PUBLISHED for model in cells):
        lines += [_OTHER_DATA, ""]
    lines += head("", "d", "parameters", *HEADS)
    for model, cell in cells.items():
        title = model.capitalize()
        if cell is None:
            lines.append(row(f"{title}: no results yet", *[""] * 9))
        else:
            lines += _cell_rows(title, cell, PUBLISHED.get(f"{dataset}/{model}", {}), dataset in SAME_DATA)
    return "\n".join(lines) + "\n"


def _cell_rows(title: str, cell: dict[str, Any], published: dict[str, Any], is_same_data: bool) -> Iterable[str]:
    teacher = cell["roles"]["teacher"]["parameters"]
    best = {column: max(ROLES, key=lambda role: cell["roles"][role]["metrics"][column]["mean"]) for column in COLUMNS}
    for role, name in ROLES.items():
        found = cell["roles"][role]
        texts = [with_deviation(found["metrics"][column]) for column in COLUMNS]
        texts = [f"**{text}**" if best[column] == role else text for text, column in zip(texts, COLUMNS, strict=True)]
        of = f", {seeds_text(cell['seeds'])}" if role == "teacher" else ""
        yield row(f"{title} {name}{of}", found["dim"], size(found["parameters"], teacher), *texts)
        if role in published and is_same_data:
            yield row("*published*", "", "", *(f"*{short(value)}*" for value in published[role]))
            ours = [found["metrics"][column]["mean"] for column in COLUMNS]
            yield row("*difference*", "", "", *_gains(ours, published[role]))
    for reference, other in REFERENCES.items():
        tests = cell["comparisons"][reference].values()
        marked = (f"{percent(test['percent'])} {stars(test['t_holm'])}".strip() for test in tests)
        yield row(f"distilled against {other}", "", "", *(text.replace("*", "\\*") for text in marked))
        if published:
            yield row("*published gain*", "", "", *_gains(published["distilled"], published[reference]))


def _gains(values: Iterable[float], references: Iterable[float]) -> list[str]:
    return [f"*{gain(value, other)}*" for value, other in zip(values, references, strict=True)]


def efficiency_table(cells: dict[str, Any]) -> str:
    """Parameters, seconds and bytes of teacher and student, the published ones beside them.

    Args:
        cells: name -> a cell of the summary; those that nobody has measured are left out.

    Returns:
        The table under its heading, or nothing where no cell is measured.
    """
    measured = {name: cell["efficiency"] for name, cell in cells.items() if cell["efficiency"]}
    if not measured:
        return ""
    lines = ["### Efficiency", ""]
    lines += head("", "parameters", "published", "seconds on the CPU", "published", "SavedModel, MB")
    for name, found in measured.items():
        for index, role in enumerate(("teacher", "distilled")):
            one = found["roles"][role]
            ratios = {
                key: 100 * one[key] / found["roles"]["teacher"][key]
                for key in ("parameters", "seconds", "savedmodel_bytes")
            }
            sizes, seconds = PARAMETERS.get(name), CPU_SECONDS.get(name)
            lines.append(
                row(
                    f"{name} {ROLES[role]}",
                    f"{one['parameters']:,} ({ratios['parameters']:.1f} %)",
                    f"{sizes[index]} M ({100 * sizes[index] / sizes[0]:.1f} %)" if sizes else "",
                    f"{one['seconds']:.3f} ({ratios['seconds']:.1f} %)",
                    f"{seconds[index]} ({100 * seconds[index] / seconds[0]:.1f} %)" if seconds else "",
                    f"{one['savedmodel_bytes'] / 1e6:.2f} ({ratios['savedmodel_bytes']:.1f} %)",
                )
            )
    return "\n".join(lines) + "\n" + _how_measured(measured)


def _how_measured(measured: dict[str, Any]) -> str:
    machines = dict.fromkeys(
        f"{found['machine']['cores']} cores of {found['machine']['processor']}" for found in measured.values()
    )
    some = next(iter(measured.values()))
    return (
        f"\nSeconds for one list of {some['k']} items for every user, {some['block']:,} users a call, median of "
        f"{len(some['roles']['teacher']['seconds_of_repeats'])} turns, on {'; '.join(machines)}.\n"
    )


def markdown_tables(summary: dict[str, Any]) -> str:
    """Effectiveness by dataset, the tests, and efficiency.

    Args:
        summary: what `summarise` returns.
    """
    parts = [f"Split: {summary['split']}. {LEGEND}", ""] if summary["split"] else []
    for dataset, cells in cells_by_dataset(summary).items():
        parts.append(effectiveness_table(dataset, cells))
        counts = next((cell["counts"] for cell in cells.values() if cell), None)
        if counts:
            parts.append(f"{dataset.capitalize()}: {left_out_line(counts)}.\n")
    measured = {name: cell for name, cell in summary["cells"].items() if cell}
    if measured:
        parts += [_tests_table(measured), efficiency_table(measured)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _tests_table(cells: dict[str, Any]) -> str:
    lines = ["### Significance of MAP", ""]
    lines += [
        "Two-sided p-values, those over users Holm-corrected; Wilcoxon's signed-rank test with zero differences as "
        "Pratt treats them. All metrics: significance.csv.",
        "",
        *head("", "difference", "95 % interval", "users", "t over users", "Wilcoxon", "t over seeds"),
    ]
    for name, cell in cells.items():
        for reference, other in REFERENCES.items():
            test = cell["comparisons"][reference]["map"]
            lines.append(
                row(
                    f"{name}: distilled against {other}",
                    percent(test["percent"]),
                    f"{percent(test['percent_low'])} to {percent(test['percent_high'])}",
                    f"{cell['users']:,}",
                    p_text(test["t_holm"]),
                    p_text(test["wilcoxon_holm"]),
                    f"{p_text(test['seeds_t_p'])} (n = {test['seeds_n']})",
                )
            )
    return "\n".join(lines) + "\n"


def latex_tables(summary: dict[str, Any]) -> str:
    """One table a dataset: a row a model and role, the best of a model bold, marks for what the tests say.

    Args:
        summary: what `summarise` returns; its cells without evidence are left out.
    """
    return "\n".join(_latex_table(summary["split"], *each) for each in cells_by_dataset(summary).items())


def _latex_table(split: str, dataset: str, cells: dict[str, Any]) -> str:
    there = {model: cell for model, cell in cells.items() if cell}
    if not there:
        return f"% {dataset}: no results yet\n"
    seeds = "; ".join(f"{_escape(model.capitalize())}: {seeds_text(cell['seeds'])}" for model, cell in there.items())
    body = "    \\midrule\n".join(
        "".join(_latex_row(model, role, cell) for role in _ROWS) for model, cell in there.items()
    )
    return (
        "% Generated by python -m pipelines.paper; needs \\usepackage{booktabs}.\n"
        "\\begin{table}\n  \\centering\n"
        f"  \\caption{{{_escape(dataset.capitalize())}, {split} split, means over the seeds ({seeds}). "
        "Paired t-tests over the users, Holm-corrected: $^{**}$ ($p<.01$) and $^{*}$ ($p<.05$) RD above S, "
        "$^{\\dagger\\dagger}$ and $^{\\dagger}$ RD above T, $^{\\ddagger\\ddagger}$ and $^{\\ddagger}$ RD below T, "
        "$^{\\circ\\circ}$ and $^{\\circ}$ RD below S.}\n"
        f"  \\begin{{tabular}}{{l{'r' * len(HEADS)}}}\n    \\toprule\n"
        f"    Model & {' & '.join(HEADS)} \\\\\n    \\midrule\n"
        f"{body}    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
    )


def _latex_row(model: str, role: str, cell: dict[str, Any]) -> str:
    texts = []
    for column in COLUMNS:
        means = {each: cell["roles"][each]["metrics"][column]["mean"] for each in _ROWS}
        text = short(means[role])
        if means[role] == max(means.values()):
            text = f"\\textbf{{{text}}}"
        if role == "distilled":
            text += _marks(cell["comparisons"], column)
        texts.append(text)
    return f"    {_escape(model.capitalize())}-{_ROWS[role]} & {' & '.join(texts)} \\\\\n"


def _marks(comparisons: dict[str, Any], column: str) -> str:
    marks = ""
    for reference, above, below in (("student", "*", "\\circ"), ("teacher", "\\dagger", "\\ddagger")):
        test = comparisons[reference][column]
        times = 2 if test["t_holm"] < 0.01 else int(test["t_holm"] < 0.05)
        marks += times * (above if test["difference"] > 0 else below)
    return f"$^{{{marks}}}$" if marks else ""


def _escape(text: str) -> str:
    return text.replace("_", "\\_").replace("&", "\\&").replace("%", "\\%").replace("#", "\\#")


def tuning_table(tuning: Path) -> str:
    """Markdown of every trial below results/tuning: the flags that are not the default, and validation MAP by epoch.

    Args:
        tuning: holds `<cell>/<trial>/{flags.cfg,history.csv}`, or what `pipelines.tune` wrote, whose own table of the
            best trials is taken.
    """
    lines = []
    for cell in sorted(path for path in tuning.iterdir() if path.is_dir()) if tuning.is_dir() else ():
        if (cell / TRIALS).is_file():
            lines += [f"**{cell.name}**", "", (cell / TRIALS).read_text(encoding="utf-8")]
            continue
        trials = {path.name: _read_trial(path) for path in sorted(cell.iterdir())}
        epochs = sorted({epoch for _, maps in trials.values() for epoch in maps})
        lines += [f"**{cell.name}**", ""]
        lines += [f"| flags | {' | '.join(f'epoch {epoch}' for epoch in epochs)} |", f"|---|{'---|' * len(epochs)}"]
        for settings, maps in trials.values():
            cells = " | ".join(short(maps[epoch]) if epoch in maps else "" for epoch in epochs)
            lines.append(f"| {settings} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def _read_trial(trial: Path) -> tuple[str, dict[int, float]]:
    flags = parse(train, [f"--flagfile={trial / run_directory.FLAGS}"])
    defaults = default_flags(train)
    changed = {name: value for name, value in flags.items() if value != defaults[name] and name not in _NOT_SHOWN}
    with open(trial / run_directory.HISTORY, encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    maps = {int(row["epoch"]): float(row["validation/map"]) for row in rows if row.get("validation/map")}
    settings = " ".join(flag_lines(changed).splitlines())
    return f"`{settings}`" + (", distilled" if flags["teacher"] else ""), maps


def readme_table(results: Path) -> str:
    """The README's one table: MAP and P@3 of three roles, a row a report of the best recipe, then a row a paper's cell.

    Args:
        results: holds `paper`, which `pipelines.paper` has filled, and folders with a `report.json`; all may be
            missing.
    """
    rows = []
    for folder, title in _reports(results, _BEST).items():
        report = read_json(results / folder / "report.json")
        found = {role: _Shown(each["parameters"], each["metrics"]) for role, each in report["roles"].items()}
        rows.append(_readme_row(title, len(report["seeds"]), found, {"map": _stars_of(report)}))
    for name, cell in _measured(results).items():
        dataset, model = name.split("/")
        found = {role: _Shown(each["parameters"], _means(each)) for role, each in cell["roles"].items()}
        marks = {column: stars(test["t_holm"]) for column, test in cell["comparisons"]["student"].items()}
        title = f"{dataset.capitalize()}, {model.capitalize()}, paper's settings"
        rows.append(_readme_row(title, len(cell["seeds"]), found, marks))
    names = [name for title in _README_COLUMNS.values() for name in (f"{title}, teacher", "alone", "distilled", "gain")]
    return "\n".join([*head("", "seeds", "student's size", *names), *rows]) + "\n"


def _stars_of(report: dict[str, Any]) -> str:
    """Of MAP, distilled against alone; none where there is no value."""
    p = report["comparison"]["t_p"]
    return "" if p is None else stars(p)


@dataclasses.dataclass(frozen=True)
class _Shown:
    parameters: int
    metrics: dict[str, float]


def _means(role: dict[str, Any]) -> dict[str, float]:
    return {column: metric["mean"] for column, metric in role["metrics"].items()}


def _readme_row(title: str, seeds: int, found: dict[str, _Shown], marks: dict[str, str]) -> str:
    texts = []
    for column in _README_COLUMNS:
        values = {role: found[role].metrics[column] for role in ROLES}
        gained = f"{gain(values['distilled'], values['student'])} {marks.get(column, '')}".strip()
        texts += [*map(short, values.values()), gained.replace("*", "\\*")]
    share = 100 * found["distilled"].parameters / found["teacher"].parameters
    return row(title, seeds, f"{share:.{0 if share >= 10 else 1}f} %", *texts)


def _measured(results: Path) -> dict[str, dict[str, Any]]:
    """The cells of the paper's tables that there is evidence of."""
    return {name: cell for name, cell in read_summary(results / "paper")["cells"].items() if cell}


def _reports(results: Path, folders: dict[str, str]) -> dict[str, str]:
    """Folder -> heading of the reports that are there; the paper's cells stand in place of their single reports."""
    done = _measured(results)
    return {
        folder: title
        for folder, title in folders.items()
        if folder not in done and (results / folder / "report.json").is_file()
    }


def report_tables(results: Path) -> str:
    """Markdown of every report that is no cell of the paper's tables."""
    return "\n".join(
        _report_table(read_json(results / folder / "report.json"), title, folder)
        for folder, title in _reports(results, _BEST | _OTHERS).items()
    )


def _report_table(report: dict[str, Any], title: str, folder: str) -> str:
    seeds = report["seeds"]
    of = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds))}"
    lines = [f"**{title}**: {report['split']} split, {of} ([flags, logs and metrics](../results/{folder}))", ""]
    lines += head("", "d", "parameters", *HEADS)
    published = PUBLISHED.get(folder, {})
    teacher = report["roles"]["teacher"]["parameters"]
    for name, against in report.get("teachers", {}).items():
        lines.append(row(f"teacher {name}", "", "", *(short(against["metrics"][column]) for column in COLUMNS)))
    for role, name in ROLES.items():
        found = report["roles"][role]
        values = (short(found["metrics"][column]) for column in COLUMNS)
        title = "teacher, fused" if found["model"] == "fusion" else name
        lines.append(row(title, found["dim"] or "", size(found["parameters"], teacher), *values))
        if role in published:
            lines.append(row("*published*", "", "", *(f"*{short(value)}*" for value in published[role])))
    alone, distilled = (report["roles"][role]["metrics"] for role in ("student", "distilled"))
    gains = (gain(distilled[column], alone[column]) for column in COLUMNS)
    lines.append(row("distilled against alone", "", "", *gains))
    if len(seeds) > 1:
        maps = [
            f"{report['roles']['student']['by_seed'][str(seed)]['map']:.4f} → "
            f"{report['roles']['distilled']['by_seed'][str(seed)]['map']:.4f}"
            for seed in seeds
        ]
        lines += ["", f"MAP of the student, alone → distilled, by seed: {', '.join(maps)}."]
    above = [
        f"{name} in {against['above']} of {len(against['gains'])} (MAP {percent(against['gains']['ap'])})"
        for name, against in report.get("teachers", {}).items()
    ]
    if above:
        lines += ["", f"The student distilled is above a teacher, p < .01 by metric: {', '.join(above)}."]
    return "\n".join(lines) + "\n"
