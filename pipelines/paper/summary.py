"""All numbers of the paper's tables, computed from results/ alone."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.paper.chains import Cell
from pipelines.paper.efficiency import read_efficiency
from pipelines.records import (
    COLUMNS,
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
from rd_tf.evaluation.significance import compare_paired, holm
from rd_tf.storage import InputError, read_json

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
        `roles` (role -> dim, parameters, seconds of training, `metrics` -> mean, std (over seeds, None for one),
        by_seed), `comparisons` ("student" or "teacher" -> metric -> what `compare_paired` finds over users, whose
        values are averaged over seeds, with `t_holm` and `wilcoxon_holm`, corrected over the cell's 7 metrics x 2
        comparisons; and `seeds_n`, `seeds_t_p` of a paired t-test over the seeds' means), `efficiency`, None where
        nobody has measured these models.

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
