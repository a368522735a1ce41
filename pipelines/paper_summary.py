"""All numbers of the paper's tables, computed from results/ alone."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cell_results import CellResults, read_cell
from pipelines.cells import Cell
from pipelines.efficiency import read_efficiency
from pipelines.published import COLUMNS
from pipelines.roles import REFERENCES, ROLES
from rd_tf.evaluation.significance import compare_paired, holm
from rd_tf.storage import InputError


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
