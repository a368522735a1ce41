"""What is shown of the leaderboard, from results/ alone: times for a list, tables, and quality against size."""

import dataclasses
import math
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.leaderboard_row import MADE_FILES, Board, Row, read_record
from pipelines.paper.efficiency import BLOCK, DEVICE, K, list_all, turns
from pipelines.records import COLUMNS, HEADS, PER_USER_METRICS, check_alike, is_complete, read_metrics, read_per_user
from pipelines.report import COLORS, head, p_text, percent, picture, replace_between, stars, with_deviation
from pipelines.report import row as table_row
from rd_tf import run_directory
from rd_tf.evaluation.held_out import left_out_line
from rd_tf.evaluation.metrics import compare_paired, holm
from rd_tf.storage import InputError, json_sha256, read_manifest, write_json, write_text

SPEED = "speed.json"


def shape_of(manifest: dict[str, Any]) -> str:
    """What rankers that take equally long have in common: the class and its arguments, but for the seed."""
    model = manifest["model"]
    arguments = {name: value for name, value in model["config"].items() if name != "seed"}
    return json_sha256([model["class"], arguments, model["dtype_policy"]])[:16]


def read_speed(directory: Path) -> dict[str, Any]:
    """What a dataset's `speed.json` holds, by shape; nothing where it is missing.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / SPEED
    if not path.is_file():
        return {}
    shapes = read_manifest(path, {"shapes": dict})["shapes"]
    for name, found in shapes.items():
        seconds = found.get("seconds") if isinstance(found, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
            raise InputError(f"{path} is damaged (no usable seconds of {name}); delete it to measure again")
    return dict(shapes)


def measure_missing(board: Board, rows: list[Row], seeds: list[int]) -> list[str]:
    """Measures the shapes that `speed.json` lacks, of runs that are those of the evidence.

    For every user a list of 10 items is made from the whole history, 1,024 users a call of a graph, on the CPU; models
    take turns, and the median of 5 turns counts.

    Args:
        board: all rows.
        rows: those to measure.
        seeds: whose runs may be taken.

    Returns:
        A phrase for every dataset that could not be measured.
    """
    failures = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        known, missing = read_speed(board.results / dataset), dict[str, Path]()
        for row in (row for row in rows if row.dataset == dataset and row.is_trained):
            for seed in seeds:
                if board.has_run(row, seed):
                    shape = shape_of(run_directory.load_run_manifest(board.run(row, seed)))
                    if shape not in known:
                        missing.setdefault(shape, board.run(row, seed))
        if not missing:
            continue
        print(f"{dataset}: measuring the speed of {len(missing)} models", flush=True)
        try:
            found = _measure(missing, board.datasets_dir / dataset)
            write_json(board.results / dataset / SPEED, {"shapes": {**known, **found}})
        except (InputError, OSError) as error:
            failures.append(f"{dataset}: the speed could not be measured ({error})")
    return failures


def _measure(runs: dict[str, Path], dataset: Path) -> dict[str, Any]:
    from rd_tf.runtime import import_quietly

    import_quietly()
    import tensorflow as tf

    from rd_tf.data.dataset import load_dataset
    from rd_tf.models.registry import load_model

    interactions, load = load_dataset(dataset), os.getloadavg()[0]
    with tf.device(DEVICE):
        models = {shape: load_model(run) for shape, run in runs.items()}
        seconds, device = turns({shape: list_all(model, interactions) for shape, model in models.items()})
    thousands = interactions.num_users / 1000
    machine = {**run_directory.environment()["machine"], "load": load}
    return {
        shape: {
            "model": type(model).__name__,
            "run": str(runs[shape]),
            "parameters": model.count_params(),
            "seconds": statistics.median(seconds[shape]) / thousands,
            "seconds_of_repeats": [round(each / thousands, 6) for each in seconds[shape]],
            "k": K,
            "block": BLOCK,
            "device": device,
            "machine": machine,
        }
        for shape, model in models.items()
    }


# A row is above another in a metric where it is higher and the corrected p-value is below.
LEVEL = 0.01
_BYTES = 4


@dataclasses.dataclass(frozen=True)
class RowResults:
    """The evidence of a row.

    Attributes:
        name: within the dataset.
        paths: `seed-N`, or `once`, -> directory; never none.
        manifests: the same names -> the run's manifest.
        records: -> what `row.json` holds.
        metrics: -> metric -> value.
        users: `[users] int32`, the evaluated users.
        per_user: -> `[users, metrics] float64`, metrics in the order of `PER_USER_METRICS`.
    """

    name: str
    paths: dict[str, Path]
    manifests: dict[str, dict[str, Any]]
    records: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, float]]
    users: np.ndarray
    per_user: dict[str, np.ndarray]

    @property
    def manifest(self) -> dict[str, Any]:
        """That of the first seed."""
        return next(iter(self.manifests.values()))

    @property
    def record(self) -> dict[str, Any]:
        """That of the first seed."""
        return next(iter(self.records.values()))

    @property
    def flags(self) -> dict[str, Any]:
        """Those of `rd_tf.train`; none of a teacher that is not trained."""
        return dict(self.manifest.get("flags", {}))

    def over_seeds(self, folders: list[str]) -> np.ndarray:
        """`[users, metrics]`: means over some seeds."""
        return np.mean([self.per_user[folder] for folder in folders], axis=0)


def read_row(directory: Path) -> RowResults | None:
    """Reads the seeds of a row's folder; None where none is complete.

    Raises:
        InputError: a file is damaged, or the seeds are of different settings, data, teachers or users.
    """
    found = {path.name: path for path in sorted(directory.iterdir(), key=_by_seed) if path.is_dir()}
    paths = {name: path for name, path in found.items() if is_complete(path, True, MADE_FILES)}
    if not paths:
        return None
    manifests = {name: run_directory.load_run_manifest(path) for name, path in paths.items()}
    records = {name: read_record(path) for name, path in paths.items()}
    first = next(iter(paths))
    for name, path in paths.items():
        check_alike(path, manifests[name], paths[first], manifests[first], but={"seed"})
        if (records[name]["role"], records[name]["taught"]) != (records[first]["role"], records[first]["taught"]):
            raise InputError(f"{path} learned from another teacher than {paths[first]}; keep one of the two only")
    tables = {name: read_per_user(path) for name, path in paths.items()}
    users = tables[first]["user"].to_numpy()
    _check_users(directory, users, *(table["user"].to_numpy() for table in tables.values()))
    return RowResults(
        directory.name,
        paths,
        manifests,
        records,
        {name: read_metrics(path, COLUMNS)["metrics"] for name, path in paths.items()},
        users,
        {name: table[list(PER_USER_METRICS)].to_numpy(np.float64) for name, table in tables.items()},
    )


def _by_seed(path: Path) -> tuple[int, str]:
    number = path.name.removeprefix("seed-")
    return (int(number) if number.isdecimal() else -1), path.name


def _check_users(directory: Path, users: np.ndarray, *others: np.ndarray) -> None:
    if any(not np.array_equal(users, other) for other in others):
        raise InputError(f"{directory}: it was evaluated on other users than the rest; train it again")


def summarise(results: Path) -> dict[str, Any]:
    """Computes means, deviations over seeds, sizes, tests and gains of every row that results hold.

    Args:
        results: holds `<dataset>/<row>/seed-N/`, or `once/`.

    Returns:
        JSON values: `split`, and `datasets` by name: `users`, `counts` and `rows` by name, by falling MAP: `role`,
        `teacher`, `model`, `dim`, `parameters`, `bytes` (of the weights as float32), `seconds` (of training), `speed`
        (seconds for the lists of 1,000 users; None where nobody has measured it), `seeds`, `metrics` and `tail` (mean,
        std over seeds, None for one, by_seed), `alone` (name of the row that a distilled one is held against) and
        `against` (name of a row -> `above`, in how many metrics the row is higher with p < .01, and metric -> what
        `compare_paired` finds over users, whose values are averaged over the seeds that both have, with `t_holm`,
        corrected over the 7 metrics).

    Raises:
        InputError: evidence that is damaged or does not belong together.
    """
    datasets, splits = {}, {}
    for directory in sorted(path for path in results.iterdir() if path.is_dir()) if results.is_dir() else ():
        found = [read_row(path) for path in sorted(directory.iterdir()) if path.is_dir()]
        rows = {row.name: row for row in found if row}
        if rows:
            _check_together(directory, rows)
            datasets[directory.name] = _dataset(rows, read_speed(directory))
            splits[directory.name] = next(iter(rows.values())).manifest["split"]
    if len(set(splits.values())) > 1:
        raise InputError(f"{results} mixes splits ({splits}); keep one split in a directory")
    return {"split": next(iter(splits.values()), None), "datasets": datasets}


def _check_together(directory: Path, rows: dict[str, RowResults]) -> None:
    first = next(iter(rows.values()))
    for row in rows.values():
        _check_users(directory / row.name, first.users, row.users)
        for name, (one, other) in {
            "split": (row.manifest["split"], first.manifest["split"]),
            "dataset": (row.manifest["dataset"]["fingerprint"], first.manifest["dataset"]["fingerprint"]),
        }.items():
            if one != other:
                raise InputError(f"{directory / row.name} is of another {name} than {first.name}; keep one {name} only")
        for folder, record in row.records.items():
            for name, before in record["fingerprints"].items():
                teacher = rows.get(name)
                now = teacher.manifests.get(folder, teacher.manifests.get("once")) if teacher else None
                if now is not None and now["model"]["fingerprint"] != before:
                    raise InputError(
                        f"{row.paths[folder]} learned from another {name} than the one in {directory / name}; delete "
                        "it and its run to make it again"
                    )


def _dataset(rows: dict[str, RowResults], speeds: dict[str, Any]) -> dict[str, Any]:
    described = {name: _row(row, rows, speeds) for name, row in rows.items()}
    order = sorted(described, key=lambda name: (-described[name]["metrics"]["map"]["mean"], name))
    some = next(iter(rows.values()))
    counts = read_metrics(next(iter(some.paths.values())))["counts"]
    return {"users": len(some.users), "counts": counts, "rows": {name: described[name] for name in order}}


def _row(row: RowResults, rows: dict[str, RowResults], speeds: dict[str, Any]) -> dict[str, Any]:
    manifest, flags, taught = row.manifest, row.flags, row.record["taught"]
    parameters = manifest["model"]["parameters"]
    seconds = [each["seconds"] for each in row.manifests.values() if "seconds" in each]
    measured = speeds.get(shape_of(manifest))
    alone = _alone(row, rows) if row.record["role"] == "distilled" else None
    return {
        "role": row.record["role"],
        "teacher": taught["name"] if taught and row.record["role"] == "distilled" else None,
        "made_of": taught["parts"] if taught else None,
        "model": manifest["model"]["class"],
        "dim": flags.get("dim"),
        "ranking_loss": flags.get("ranking_loss"),
        "distillation_loss": flags.get("distillation_loss") if row.record["role"] == "distilled" else None,
        "parameters": parameters,
        "bytes": _BYTES * parameters,
        "seconds": float(np.mean(seconds)) if seconds else None,
        "speed": measured["seconds"] if measured else None,
        "seeds": list(row.paths),
        "metrics": {column: _over({name: each[column] for name, each in row.metrics.items()}) for column in COLUMNS},
        "tail": _over({name: each["tail"]["recall@10"] for name, each in row.records.items()}),
        "alone": alone,
        "against": _against(row, rows, alone) if row.record["role"] == "distilled" else {},
    }


def _over(by_seed: dict[str, float]) -> dict[str, Any]:
    values = list(by_seed.values())
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": deviation, "by_seed": by_seed}


def _alone(row: RowResults, rows: dict[str, RowResults]) -> str | None:
    """The best row alone of the same model, size, lengths and ranking loss."""
    same = ("model", "dim", "ranking_loss", "sequence_length", "target_length")
    candidates = {
        name: np.mean([each["map"] for each in other.metrics.values()])
        for name, other in rows.items()
        if other.record["role"] == "alone" and all(other.flags.get(flag) == row.flags.get(flag) for flag in same)
    }
    return max(candidates, key=lambda name: candidates[name]) if candidates else None


def _against(row: RowResults, rows: dict[str, RowResults], alone: str | None) -> dict[str, Any]:
    taught = row.record["taught"]
    names = dict.fromkeys(name for name in (alone, *taught["parts"], taught["name"]) if name in rows)
    found = {str(name): _compare(row, rows[str(name)]) for name in names}
    return {name: tests for name, tests in found.items() if tests}


def _compare(row: RowResults, other: RowResults) -> dict[str, Any] | None:
    """Tests of two rows, metric by metric; None where no seed is common to both."""
    common = [name for name in row.paths if name in other.paths]
    if list(other.paths) == ["once"]:
        ours, reference = row.over_seeds(list(row.paths)), other.over_seeds(["once"])
    elif common:
        ours, reference = row.over_seeds(common), other.over_seeds(common)
    else:
        return None
    pairs = {column: compare_paired(ours[:, i], reference[:, i]) for i, column in enumerate(COLUMNS)}
    tests = {column: dataclasses.asdict(pair) for column, pair in pairs.items()}
    corrected = holm(np.array([np.nan_to_num(test["t_p"], nan=1.0) for test in tests.values()]))
    for test, value in zip(tests.values(), corrected, strict=True):
        test["t_holm"] = float(value)
    above = sum(test["difference"] > 0 and test["t_holm"] < LEVEL for test in tests.values())
    metrics = {
        column: {key: None if math.isnan(value) else value for key, value in test.items()}
        for column, test in tests.items()
    }
    return {"above": above, "metrics": metrics}


SUMMARY, PICTURE, MARKERS = "leaderboard.json", "frontier.png", "leaderboard"
_COLORS = {"teacher": COLORS["teacher"], "alone": COLORS["student"], "distilled": COLORS["distilled"]}
_SYMBOLS = {"teacher": "s", "alone": "o", "distilled": "D"}
_TITLES = {"teacher": "teacher", "alone": "student alone", "distilled": "student distilled"}
_LEGEND = (
    "{split} split, mean ± sample standard deviation over the seeds. MB: the parameters as float32. Tail: recall@10 of "
    "the held-out items that are among the least popular 80 % of the items. Seconds: for the lists of 1,000 users on "
    "one machine. The best of a column is bold."
)
_TESTS = (
    "Gains of the distilled rows, of means over the seeds that both have. \\*\\* p < .01, \\* p < .05: paired t-test "
    "over the users, whose values are averaged over the seeds, Holm-corrected over the 7 metrics; p is that of MAP, "
    "and *above* counts the metrics in which the row is higher with p < .01."
)


def write_output(results: Path, page: str) -> list[Path]:
    """Writes `leaderboard.json`, `frontier.png` and, where one is named, the page's tables.

    Args:
        results: directory of the evidence, which gets the files.
        page: a Markdown file with the markers; empty for none.

    Returns:
        The files.

    Raises:
        InputError: evidence that does not belong together, or the page lacks a marker.
    """
    summary = summarise(results)
    write_json(results / SUMMARY, summary)
    written = [results / SUMMARY]
    if summary["datasets"]:
        plot_frontier(summary, results / PICTURE)
        written.append(results / PICTURE)
    if page:
        tables = markdown(summary)
        if summary["datasets"]:
            link = os.path.relpath(results / PICTURE, Path(page).parent)
            tables += f"\n![MAP against parameters]({link})\n"
        text = Path(page).read_text(encoding="utf-8")
        write_text(page, replace_between(text, MARKERS, f"\n{tables}", page))
        written.append(Path(page))
    for path in written:
        print(f"wrote {path}", flush=True)
    return written


def markdown(summary: dict[str, Any]) -> str:
    """The tables of every dataset, rows by falling MAP.

    Args:
        summary: what `summarise` returns.
    """
    if not summary["datasets"]:
        return "No row has been run yet.\n"
    parts = [_LEGEND.format(split=summary["split"].capitalize())]
    for dataset, found in summary["datasets"].items():
        left_out = left_out_line(found["counts"])
        parts += [f"### {dataset.capitalize()}", f"Every row is {left_out}.", _quality(found["rows"])]
        gains = _gains(found["rows"])
        if gains:
            parts += [f"#### {dataset.capitalize()}: what distillation gains", _TESTS, gains]
    return "\n\n".join(parts) + "\n"


def _quality(rows: dict[str, Any]) -> str:
    names = ("", "role", "learned from", "d", "parameters", "MB", *HEADS, "tail", "seconds", "seeds")
    best = {column: max(each["metrics"][column]["mean"] for each in rows.values()) for column in COLUMNS}
    best_tail = max(each["tail"]["mean"] for each in rows.values())
    lines = head(*names)
    for name, each in rows.items():
        metrics = [(each["metrics"][column], best[column]) for column in COLUMNS] + [(each["tail"], best_tail)]
        texts = [
            f"**{with_deviation(metric)}**" if metric["mean"] == highest else with_deviation(metric)
            for metric, highest in metrics
        ]
        lines.append(
            table_row(
                name,
                each["role"],
                _learned_from(each),
                "" if each["dim"] is None else each["dim"],
                f"{each['parameters']:,}",
                f"{each['bytes'] / 1e6:.2f}",
                *texts,
                "" if each["speed"] is None else f"{each['speed']:.3f}",
                "" if each["seeds"] == ["once"] else len(each["seeds"]),
            )
        )
    return "\n".join(lines)


def _learned_from(each: dict[str, Any]) -> str:
    if each["role"] == "distilled":
        return str(each["teacher"]).replace("*", "\\*")
    if not each["made_of"] or len(each["made_of"]) < 2:
        return ""
    return " + ".join(f"{weight:g} {name}" for name, weight in each["made_of"].items())


def _gains(rows: dict[str, Any]) -> str:
    lines = head("", "against", *HEADS, "p", "above")
    count = len(lines)
    for name, each in rows.items():
        for other, tests in each["against"].items():
            title = f"{other} (alone)" if other == each["alone"] else other
            texts = []
            for column in COLUMNS:
                test = tests["metrics"][column]
                texts.append(f"{percent(test['percent'])} {stars(test['t_holm'])}".strip().replace("*", "\\*"))
            p = p_text(tests["metrics"]["map"]["t_holm"])
            lines.append(table_row(name, title, *texts, p, f"{tests['above']} of {len(COLUMNS)}"))
    return "\n".join(lines) if len(lines) > count else ""


def plot_frontier(summary: dict[str, Any], path: Path) -> None:
    """Plots MAP against parameters, a panel a dataset; the line joins the rows that no smaller one reaches.

    Args:
        summary: what `summarise` returns, with a dataset at least.
        path: the picture.
    """
    datasets = summary["datasets"]
    with picture(path, 1, len(datasets), squeeze=False, figsize=(1 + 5.5 * len(datasets), 4.2)) as axes:
        for axis, (dataset, found) in zip(axes[0], datasets.items(), strict=True):
            points = {
                name: (each["parameters"], each["metrics"]["map"]["mean"]) for name, each in found["rows"].items()
            }
            for role, title in _TITLES.items():
                names = [name for name, each in found["rows"].items() if each["role"] == role]
                xs, ys = [points[name][0] for name in names], [points[name][1] for name in names]
                axis.plot(xs, ys, _SYMBOLS[role], color=_COLORS[role], markersize=5, label=title)
            for name, point in points.items():
                axis.annotate(name, point, xytext=(4, 3), textcoords="offset points", fontsize=6)
            best, frontier = float("-inf"), []
            for point in sorted(points.values(), key=lambda each: (each[0], -each[1])):
                if point[1] > best:
                    best = point[1]
                    frontier.append(point)
            axis.step(*zip(*frontier, strict=True), where="post", color="#808080", linewidth=0.8, zorder=0)
            axis.set_xscale("log")
            axis.set(title=dataset, xlabel="parameters", ylabel=f"MAP, {summary['split']} split")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7)
