"""What results/ hold of a cell, read and checked."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.check_alike import check_alike
from pipelines.check_teacher import check_teacher
from pipelines.evidence import is_complete
from pipelines.per_user_values import PER_USER_METRICS, read_per_user
from pipelines.published import COLUMNS
from pipelines.roles import ROLES
from pipelines.run_record import read_manifest, read_metrics
from rd_tf.storage import InputError


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
        # --distilled_epochs and --distilled_dropout give it its own.
        own = {"teacher", "epochs", "dropout"}
        check_alike(path, distilled, where["student"][seed], manifests["student"][seed], but=own)
        check_teacher(path, distilled, where["teacher"][seed], manifests["teacher"][seed])
