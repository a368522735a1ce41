"""python -m pipelines.leaderboard: every row of the leaderboard, from training to its page, resumable anywhere."""

from pathlib import Path

from pipelines.distill import parse_seeds
from pipelines.leaderboard_page import measure_missing, write_output
from pipelines.leaderboard_row import RESULTS, Board, Row, open_board
from pipelines.paper.chains import Chain, run_chains
from rd_tf import command_line
from rd_tf.storage import InputError, directory_lock


def leaderboard(
    *,
    rows_file: str,
    rows: list[str],
    configs_dir: str,
    datasets_dir: str,
    run_dir: str,
    results: str,
    seeds: list[str],
    split: str,
    jobs: int,
    train: bool,
    efficiency: bool,
    page: str,
) -> None:
    """Trains or makes what --results lacks of the table's rows, and writes tables, tests and the frontier.

    A row is a line of --rows_file. Its flags are those of <configs_dir>/<dataset>.cfg and its own. It is trained once a
    seed, after the teachers that it learns from; evidence is copied to --results as soon as a row has finished, so the
    same command goes on where it stopped. Everything shown is computed from --results alone, over all rows and seeds
    that it holds.

    Raises:
        InputError: a flag, the table or a dataset cannot be used; or a training or a measurement failed, after the
            others have finished and the tables of what is there are written.
    """
    failures: list[str] = []
    if train:
        board = open_board(rows_file, split, configs_dir, datasets_dir, run_dir, results)
        chosen, numbers = board.chosen(rows), parse_seeds(seeds)
        with directory_lock(run_dir):
            chains = missing_chains(board, chosen, numbers)
            failures = run_chains(chains, jobs, lambda line: print(line, flush=True))
            if efficiency:
                failures += measure_missing(board, chosen, numbers)
    write_output(Path(results or RESULTS), page)
    if failures:
        raise InputError(f"{'; '.join(failures)}; mend it and run the same command again, which keeps what is finished")


def missing_chains(board: Board, rows: list[Row], seeds: list[int]) -> list[Chain]:
    """A chain for every row and seed that results lack, and for the runs that those rows learn from.

    Args:
        board: all rows.
        rows: those that are wanted.
        seeds: likewise.

    Returns:
        Seed by seed, so that every row has a first number early; a row stands after its teachers.

    Raises:
        InputError: evidence is of others, or something that is to be trained cannot be; before anything is started.
    """
    chains: dict[Path, Chain] = {}

    def add(row: Row, seed: int, is_needed: bool) -> None:
        target = board.evidence(row, seed)
        is_there = board.is_done(row, seed) and (not is_needed or board.has_run(row, seed))
        if target in chains or is_there:
            return
        board.check(row)
        teachers = board.teacher_rows(row)
        for teacher in teachers:
            add(teacher, seed, is_needed=True)
        after = frozenset(_title(board, teacher, seed) for teacher in teachers)
        chains[target] = _chain(board, row, seed, after)

    wanted = {board.evidence(row, seed): (row, seed) for seed in seeds for row in rows}
    for row, seed in wanted.values():
        add(row, seed, is_needed=False)
    there = sum(target not in chains for target in wanted)
    print(f"{there} of {len(wanted)} rows and seeds are in {board.results}", flush=True)
    return list(chains.values())


def _title(board: Board, row: Row, seed: int) -> str:
    return f"{row.key} {board.folder(row, seed)}"


def _chain(board: Board, row: Row, seed: int, after: frozenset[str]) -> Chain:
    flags = {
        "rows_file": board.rows_file,
        "rows": [row.key],
        "seeds": [seed],
        "split": board.split,
        "configs_dir": board.configs_dir,
        "datasets_dir": board.datasets_dir,
        "run_dir": board.run_dir,
        "results": board.results,
    }
    run = board.run(row, seed)
    return Chain(
        title=_title(board, row, seed),
        module="pipelines.leaderboard_row",
        arguments=command_line.flag_lines(flags).splitlines(),
        log=run.with_name(f"{run.name}.log"),
        # The job itself keeps the evidence.
        evidence={},
        split=board.split,
        per_user=True,
        after=after,
    )


if __name__ == "__main__":
    command_line.run(leaderboard)
