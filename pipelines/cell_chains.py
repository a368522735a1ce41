"""The chains behind the paper's tables: one for every cell and seed."""

from pathlib import Path
from typing import Any

from pipelines.cells import Cell
from pipelines.chain import Chain
from pipelines.roles import ROLES
from pipelines.stages import stages


def cell_chain(
    cell: Cell,
    seed: int,
    arguments: list[str],
    values: dict[str, Any] | None,
    run_dir: Path,
    results: Path,
    split: str,
) -> Chain:
    """Trains and evaluates the three roles of a cell with one seed.

    `pipelines.distill` holds its run directory for itself, so every seed has one of its own, and the runs lie in
    `<run_dir>/<dataset>/<model>/seed-N/seed-N/<role>`. For the same reason it has its own exports.

    Args:
        cell: which.
        seed: of the students.
        arguments: the cell's own, of `pipelines.distill`.
        values: the flags that they come to; None where nobody knows, since the flagfile is not there.
        run_dir: directory of all runs.
        results: directory of all evidence.
        split: "validation" or "test".
    """
    root = run_dir / cell.dataset / cell.model / f"seed-{seed}"
    runs = {role: run_of(cell, seed, role, run_dir) for role in ROLES}
    targets = {role: results / cell.dataset / cell.model / root.name / role for role in ROLES}
    flags = stages(runs, seed, {**values, "split": split}) if values else {}
    return Chain(
        title=f"{cell.name} seed {seed}",
        module="pipelines.distill",
        arguments=[
            *arguments,
            f"--run_dir={root}",
            f"--seeds={seed}",
            f"--export_dir={run_dir / 'exports' / f'seed-{seed}'}",
            f"--split={split}",
            "--results=",
        ],
        log=root.with_name(f"{root.name}.log"),
        evidence={runs[role]: targets[role] for role in ROLES},
        split=split,
        per_user=True,
        flags={targets[role]: of_role for role, of_role in flags.items()},
    )


def run_of(cell: Cell, seed: int, role: str, run_dir: Path) -> Path:
    """The run directory of one role."""
    return run_dir / cell.dataset / cell.model / f"seed-{seed}" / f"seed-{seed}" / role
