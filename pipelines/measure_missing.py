"""Measures the efficiency of the cells of which nobody knows it yet."""

from pathlib import Path

from pipelines import efficiency
from pipelines.cell_chains import run_of
from pipelines.cells import Cell
from pipelines.model_fingerprint import model_fingerprint
from rd_tf.storage import InputError


def measure_missing(cells: list[Cell], seeds: list[int], run_dir: str, datasets_dir: str, results: Path) -> list[str]:
    """Measures cells whose `efficiency.json` is missing or of other models than the evidence beside it.

    It takes the first seed whose runs are those of the evidence. Where there are none, or no dataset, it prints so.

    Args:
        cells: of the tables.
        seeds: of the students.
        run_dir: directory of all runs; may be empty.
        datasets_dir: the cells' dataset directories.
        results: directory of all evidence, which gets the files.

    Returns:
        A phrase for every measurement that failed.
    """
    failures = []
    for cell in cells:
        directory, dataset = results / cell.dataset / cell.model, Path(datasets_dir) / cell.dataset
        if not directory.is_dir() or efficiency.read_efficiency(directory):
            continue
        seed = next((seed for seed in seeds if run_dir and _has_runs(cell, seed, Path(run_dir), directory)), None)
        if seed is None:
            print(f"{cell.name}: no runs of its evidence in {run_dir or '--run_dir'}, efficiency not measured")
        elif not (dataset / "manifest.json").is_file():
            print(f"{cell.name}: no dataset {dataset}, efficiency not measured")
        else:
            print(f"{cell.name}: measuring the efficiency", flush=True)
            runs = {role: run_of(cell, seed, role, Path(run_dir)) for role in efficiency.MEASURED_ROLES}
            try:
                efficiency.write_efficiency(directory, runs, str(dataset), seed)
            except (InputError, OSError, RuntimeError) as error:
                failures.append(f"{cell.name}: the efficiency could not be measured ({error})")
    return failures


def _has_runs(cell: Cell, seed: int, run_dir: Path, directory: Path) -> bool:
    found = [
        (model_fingerprint(run_of(cell, seed, role, run_dir)), model_fingerprint(directory / f"seed-{seed}" / role))
        for role in efficiency.MEASURED_ROLES
    ]
    return all(of_run is not None and of_run == of_evidence for of_run, of_evidence in found)
