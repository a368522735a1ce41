"""python -m pipelines.paper: every cell of the paper's tables, from training to the tables, resumable anywhere."""

import dataclasses
from pathlib import Path

from pipelines.distill import distill_flags, parse_seeds
from pipelines.paper.chains import (
    Cell,
    Chain,
    SweepPlan,
    cell_chain,
    check_sweeps,
    check_trainable,
    parse_cells,
    run_chains,
)
from pipelines.paper.efficiency import measure_missing
from pipelines.paper.output import write_output
from rd_tf import command_line
from rd_tf.storage import InputError, directory_lock

RESULTS = "results/paper"


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
        efficiency: whether to measure it.
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
    efficiency: bool
    sweeps: list[str]
    sweep_cell: Cell

    def train_missing(self) -> list[str]:
        """Trains, measures efficiency when no training is beside it, and sweeps.

        Returns:
            A phrase for every training or measurement that failed. Where a cell's training fails, nothing after the
            cells is begun.

        Raises:
            InputError: a flagfile, a dataset or a directory cannot be used, or evidence is of others; before anything
                is trained.
        """
        chains = self._cell_chains()
        first, points = self._sweep_chains()
        if not chains and not first and not points:
            return self._measure()
        if not self.run_dir:
            raise InputError("--run_dir is empty; name a directory for the runs")
        for cell in dict.fromkeys([cell for cell, _ in chains] + [self.sweep_cell] * bool(first or points)):
            check_trainable(self._arguments(cell))
        with directory_lock(self.run_dir):
            failures = self._run([chain for _, chain in chains])
            if failures:
                return failures
            return self._measure() + (self._run(first) or self._run(points))

    def _arguments(self, cell: Cell) -> list[str]:
        return cell.arguments(self.configs_dir, self.datasets_dir)

    def _cell_chains(self) -> list[tuple[Cell, Chain]]:
        arguments = {cell: self._arguments(cell) for cell in self.cells}
        # With complete results no flagfile is needed.
        values = {
            cell: distill_flags(arguments[cell]) if cell.flagfile(self.configs_dir).is_file() else None
            for cell in self.cells
        }
        places = Path(self.run_dir), self.results, self.split
        # Seed by seed, so that every cell has a first number early.
        chains = [
            (cell, cell_chain(cell, seed, arguments[cell], values[cell], *places))
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

    def _measure(self) -> list[str]:
        if not self.efficiency:
            return []
        return measure_missing(self.cells, self.seeds, self.run_dir, self.datasets_dir, self.results)


def paper(
    *,
    cells: list[str],
    configs_dir: str,
    datasets_dir: str,
    run_dir: str,
    results: str,
    seeds: list[str],
    split: str,
    jobs: int,
    train: bool,
    efficiency: bool,
    sweeps: list[str],
    sweep_cell: str,
) -> None:
    """Trains teacher, student alone and student distilled of every cell and seed, and writes tables, tests and plots.

    A cell and seed is trained where --results lacks its evidence, which is copied there as soon as it has finished; so
    the same command goes on where it stopped, and with complete results it needs neither datasets nor runs. Everything
    shown is computed from --results alone, over all cells and seeds that it holds.

    Raises:
        InputError: a flag, a flagfile or a dataset cannot be used; or a training or a measurement failed, after the
            others have finished and the tables of what is there are written.
    """
    chosen, target = parse_cells(cells, "cells"), Path(results or RESULTS)
    training = PaperTraining(
        cells=chosen,
        seeds=parse_seeds(seeds),
        split=split,
        configs_dir=configs_dir,
        datasets_dir=datasets_dir,
        run_dir=run_dir,
        results=target,
        jobs=jobs,
        efficiency=efficiency,
        sweeps=check_sweeps(sweeps),
        sweep_cell=parse_cells([sweep_cell], "sweep_cell")[0],
    )
    failures = training.train_missing() if train else []
    write_output(target, chosen)
    if failures:
        raise InputError(f"{'; '.join(failures)}; mend it and run the same command again, which keeps what is finished")


if __name__ == "__main__":
    command_line.run(paper)
