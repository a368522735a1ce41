"""Trains and measures what results/ lack of the paper's tables and plots."""

import dataclasses
from pathlib import Path
from typing import Any

from pipelines import efficiency
from pipelines.cell_chains import cell_chain, run_of
from pipelines.cells import Cell, check_trainable, distill_flags
from pipelines.chain import Chain
from pipelines.run_chains import run_chains
from pipelines.sweeps import SweepPlan
from rd_tf import run_directory, storage
from rd_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class PaperTraining:
    """Where everything is and what is wanted.

    Attributes:
        cells: of the tables.
        seeds: of the students.
        split: of the tables.
        configs_dir: the cells' flagfiles.
        datasets_dir: the cells' dataset directories.
        run_dir: directory of all runs; may be empty where nothing is missing.
        results: directory of all evidence.
        jobs: trainings at the same time.
        sweeps: flags to vary.
        sweep_cell: whose.
    """

    cells: list[Cell]
    seeds: list[int]
    split: str
    configs_dir: str
    datasets_dir: str
    run_dir: str
    results: Path
    jobs: int
    sweeps: list[str]
    sweep_cell: Cell

    def train_missing(self) -> list[str]:
        """Trains, measures efficiency when no training is beside it, and sweeps.

        Returns:
            A phrase for every training that failed. Where a cell's fails, nothing after the cells is begun.

        Raises:
            InputError: a flagfile, a dataset or a directory cannot be used; before anything is trained.
        """
        chains = self._cell_chains()
        first, points = self._sweep_chains()
        if not chains and not first and not points:
            return self._measure_where_possible()
        if not self.run_dir:
            raise InputError("--run_dir is empty; name a directory for the runs")
        for cell in dict.fromkeys([cell for cell, _ in chains] + [self.sweep_cell] * bool(first or points)):
            check_trainable(self._arguments(cell))
        with storage.directory_lock(self.run_dir):
            failures = self._run([chain for _, chain in chains]) or self._measure_where_possible()
            return failures or self._run(first) or self._run(points)

    def _arguments(self, cell: Cell) -> list[str]:
        return cell.arguments(self.configs_dir, self.datasets_dir)

    def _cell_chains(self) -> list[tuple[Cell, Chain]]:
        # Seed by seed: every cell has a number early.
        chains = [
            (cell, cell_chain(cell, seed, self._arguments(cell), Path(self.run_dir), self.results, self.split))
            for seed in self.seeds
            for cell in self.cells
        ]
        missing = [(cell, chain) for cell, chain in chains if not chain.is_done()]
        print(
            f"{len(chains) - len(missing)} of {len(chains)} trainings of the tables are in {self.results}", flush=True
        )
        return missing

    def _sweep_chains(self) -> tuple[list[Chain], list[Chain]]:
        """What sweeps lack: the trainings of the teachers, and those that need a teacher."""
        first, points = list[Chain](), list[Chain]()
        if not self.sweeps:
            return first, points
        arguments = self._arguments(self.sweep_cell)
        values = distill_flags(arguments)
        for seed in self.seeds:
            plan = SweepPlan(self.sweep_cell, seed, arguments, values, Path(self.run_dir), self.results)
            missing = [chain for flag in self.sweeps for chain in plan.points(flag) if not chain.is_done()]
            if not plan.default().is_done() or (missing and not plan.has_teacher()):
                first.append(plan.default())
            points += missing
        return first, points

    def _run(self, chains: list[Chain]) -> list[str]:
        return run_chains(chains, self.jobs, lambda line: print(line, flush=True))

    def _measure_where_possible(self) -> list[str]:
        """Measures cells that lack `efficiency.json` and have the runs of a seed."""
        for cell in self.cells:
            directory = self.results / cell.dataset / cell.model
            if (directory / efficiency.FILE).is_file() or not directory.is_dir():
                continue
            runs = self._runs_of_a_seed(cell)
            if runs is None:
                print(
                    f"{cell.name}: no runs in {self.run_dir or '--run_dir'} to measure the efficiency with", flush=True
                )
                continue
            seed, paths = runs
            print(f"{cell.name}: measuring the efficiency", flush=True)
            dataset = str(Path(self.datasets_dir) / cell.dataset)
            efficiency.write_efficiency(directory, paths, dataset, seed)
        return []

    def _runs_of_a_seed(self, cell: Cell) -> tuple[int, dict[str, Any]] | None:
        for seed in self.seeds:
            paths = {role: run_of(cell, seed, role, Path(self.run_dir)) for role in ("teacher", "distilled")}
            if self.run_dir and all(run_directory.is_finished_run(path) for path in paths.values()):
                return seed, paths
        return None
