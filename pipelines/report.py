"""The table of teacher, student alone and student distilled."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipelines.evidence import keep_evidence
from pipelines.number_text import gain
from pipelines.roles import ROLES
from pipelines.run_record import read_manifest, read_metrics
from rd_tf.storage import write_json


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
    write_json(root / "report.json", report)
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
    from pipelines.curves import plot_curves

    for seed, paths in runs.items():
        for role, path in paths.items():
            keep_evidence(path, results / f"seed-{seed}" / role, per_user=False)
    write_json(results / "report.json", report)
    plot_curves(results, report["seeds"][0])
