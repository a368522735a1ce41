"""python -m pipelines.paper: every cell of the paper's tables, from training to the tables, resumable anywhere."""

from pathlib import Path

from pipelines.cells import parse_cells
from pipelines.paper_output import write_output
from pipelines.paper_training import PaperTraining
from pipelines.seeds import parse_seeds
from pipelines.sweeps import check_sweeps
from rd_tf import command_line
from rd_tf.storage import InputError

RESULTS = "results/paper"


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
