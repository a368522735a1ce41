"""All numbers of the leaderboard, computed from results/ alone."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.leaderboard.rows import MADE_FILES, read_record
from pipelines.leaderboard.speed import read_speed, shape_of
from pipelines.records import COLUMNS, PER_USER_METRICS, check_alike, is_complete, read_metrics, read_per_user
from rd_tf import run_directory
from rd_tf.evaluation.significance import compare_paired, holm
from rd_tf.storage import InputError

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
        JSON values: `split`, and `datasets` by name: `users`, and `rows` by name, by falling MAP: `role`, `teacher`,
        `model`, `dim`, `parameters`, `bytes` (of the weights as float32), `seconds` (of training), `speed` (seconds for
        the lists of 1,000 users; None where nobody has measured it), `seeds`, `metrics` and `tail` (mean, std over
        seeds, None for one, by_seed), `alone` (name of the row that a distilled one is held against) and `against`
        (name of a row -> `above`, in how many metrics the row is higher with p < .01, and metric -> what
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
    return {"users": len(next(iter(rows.values())).users), "rows": {name: described[name] for name in order}}


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
