"""python -m pipelines.leaderboard.job: one row of the leaderboard with one seed, from lists to evidence."""

import dataclasses
from pathlib import Path
from typing import Any

from pipelines.distill import parse_seeds
from pipelines.leaderboard.rows import RECORD, RESULTS, Board, Row, Taught, read_rows
from pipelines.records import keep_evidence, model_fingerprint
from rd_tf import command_line, run_directory
from rd_tf.data.windows import SplitData, open_dataset
from rd_tf.storage import InputError, json_sha256, write_json, write_text
from rd_tf.train import train

# Length of the lists in which the long tail is looked for, and how much of the catalogue it is.
TAIL_CUTOFF, TAIL_SHARE = 10, 0.8


def job(
    *,
    rows_file: str,
    rows: list[str],
    seeds: list[str],
    split: str,
    configs_dir: str,
    datasets_dir: str,
    run_dir: str,
    results: str,
) -> None:
    """Trains or makes one row of the leaderboard (--rows) with one seed (--seeds), and keeps its evidence.

    pipelines.leaderboard starts this for every row and seed that it lacks. The rows that this one learns from must have
    been trained before; a run and lists that are there are kept.

    Raises:
        InputError: a flag, the table or the dataset cannot be used, a teacher is missing, or the training failed.
    """
    board = open_board(rows_file, split, configs_dir, datasets_dir, run_dir, results)
    chosen, numbers = board.chosen(rows), parse_seeds(seeds)
    if len(chosen) != 1 or len(numbers) != 1:
        raise InputError(f"--rows and --seeds name {len(chosen)} rows and {len(numbers)} seeds; name one of each")
    run_row(board, chosen[0], numbers[0])


def open_board(rows_file: str, split: str, configs_dir: str, datasets_dir: str, run_dir: str, results: str) -> Board:
    """Reads the table; arguments are the flags of those names.

    Raises:
        InputError: the table cannot be used, or the split holds nothing out.
    """
    if split == "all":
        raise InputError("--split=all holds nothing out to rank; give --split=test or --split=validation")
    if not run_dir:
        raise InputError("--run_dir is empty; name a directory for the runs")
    places = (Path(configs_dir), Path(datasets_dir), Path(run_dir), Path(results or RESULTS))
    return Board(read_rows(rows_file), rows_file, *places, split)


def run_row(board: Board, row: Row, seed: int) -> None:
    """Trains or makes a row, measures it, and keeps its evidence.

    Args:
        board: all rows.
        row: which.
        seed: of the students.

    Raises:
        InputError: anything cannot be used, or the weights are others than those that results hold evidence of.
    """
    board.check(row)
    values, run, target = board.values(row), board.run(row, seed), board.evidence(row, seed)
    from rd_tf.runtime import import_quietly, share_cores

    import_quietly()
    share_cores(values["threads_per_operation"])
    data = open_dataset(board.dataset(row)).split(board.split)
    record = _train(board, row, seed, data) if row.is_trained else _make(board, row, seed, data)
    write_json(run / RECORD, record)
    before, now = model_fingerprint(target), model_fingerprint(run)
    if before is not None and before != now:
        raise InputError(
            f"{run} has other weights than those that {target} is the evidence of; delete the evidence, and that of "
            "the rows that learned from it, to begin again"
        )
    keep_evidence(run, target, per_user=True, files=row.files)
    print(f"evidence: {target}", flush=True)


def _train(board: Board, row: Row, seed: int, data: SplitData) -> dict[str, Any]:
    from rd_tf.evaluation.evaluator import Evaluator
    from rd_tf.models.registry import load_model

    taught, lists = board.taught(row), ""
    if taught is not None:
        lists = str(_lists(board, row, seed, taught, data))
    flags = board.train_flags(row, seed, lists)
    train(**flags)
    model = load_model(board.run(row, seed))
    evaluator = Evaluator(data, model.sequence_length, flags["cutoffs"], flags["block_size"])
    return _record(board, row, seed, data, _tail(evaluator, evaluator.evaluate(model).ranks, data))


def _make(board: Board, row: Row, seed: int, data: SplitData) -> dict[str, Any]:
    """Solves or fuses a teacher, evaluates it, and leaves a directory like that of a run."""
    from rd_tf.evaluation.evaluator import Evaluator, save_evaluation
    from rd_tf.teacher.named import make_teacher
    from rd_tf.teacher.scoring import evaluate_teacher

    taught, values, run = board.taught(row), board.values(row), board.run(row, seed)
    assert taught is not None
    named = teacher_names(board, row, seed, taught)
    teacher = make_teacher(named, data)
    evaluator = Evaluator(data, 1, values["cutoffs"], values["block_size"])
    evaluation = evaluate_teacher(teacher, evaluator=evaluator)
    run.mkdir(parents=True, exist_ok=True)
    save_evaluation(evaluation, data.name, run)
    # As rd_tf.teach takes them.
    given = {
        "teacher": ",".join(named.names),
        "fusion": named.fusion,
        "fusion_weights": [f"{weight:g}" for weight in named.weights],
        "ease_l2": named.ease_l2,
        "split": data.name,
    }
    write_text(run / run_directory.FLAGS, command_line.flag_lines(given))
    manifest = {
        "split": data.name,
        "dataset": {"path": str(board.dataset(row)), "fingerprint": data.fingerprint},
        "model": {
            "class": " + ".join(taught.parts),
            "config": {"fusion": taught.fusion, "parts": taught.parts, "ease_l2": taught.ease_l2},
            "dtype_policy": "float32",
            "parameters": teacher.parameters,
            "fingerprint": teacher.fingerprint,
        },
        **run_directory.environment(),
    }
    run_directory.write_run_manifest(run, manifest)
    return _record(board, row, seed, data, _tail(evaluator, evaluation.ranks, data))


def teacher_names(board: Board, row: Row, seed: int, taught: Taught) -> Any:
    """The teacher as `rd_tf.teacher.named` knows it: runs of that seed, and names of what is solved."""
    from rd_tf.teacher.named import TeacherNames

    runs = {each.name: str(board.run(each, seed)) for each in board.teacher_rows(row)}
    weights = tuple(taught.parts.values()) if len(taught.parts) > 1 else ()
    return TeacherNames(
        tuple(runs.get(name, name) for name in taught.parts), taught.fusion or "zscore", weights, taught.ease_l2
    )


def _lists(board: Board, row: Row, seed: int, taught: Taught, data: SplitData) -> Path:
    """The teacher's lists for a row's windows, shared by all rows with the same teacher, windows, K, mask and seed."""
    from rd_tf.data.teacher_lists import CacheKey, TeacherCache
    from rd_tf.models.registry import has_short_windows
    from rd_tf.teacher.cache import keep_or_make
    from rd_tf.teacher.named import make_teacher
    from rd_tf.teacher.scoring import lists_of

    flags = board.train_flags(row, seed)
    short, k, mask = has_short_windows(flags["model"], flags["short_windows"]), flags["k"], flags["mask"]
    windows = data.windows(flags["sequence_length"], flags["target_length"], short)
    named = teacher_names(board, row, seed, taught)
    # A folder a teacher: other weights of a fusion are another one.
    described = json_sha256({**dataclasses.asdict(taught), "name": ""})[:8]
    of_seed = f"seed-{seed}" if taught.trained else "once"
    folder = board.run_dir / row.dataset / "lists" / f"{taught.name.replace('*', 'x')}-{described}" / of_seed
    place = folder / f"k{k}-{mask}-L{flags['sequence_length']}-{windows.fingerprint()[:8]}"
    key = CacheKey.of(data.fingerprint, data.name, windows, named.fingerprint(data), mask)

    def make() -> TeacherCache:
        lists = lists_of(make_teacher(named, data), windows, k, mask, flags["block_size"])
        print(f"teacher's lists: {place} ({len(lists):,} windows, K = {k}, mask {mask})", flush=True)
        return lists

    # Other rows may be making the same lists.
    keep_or_make(place, key, k, make, is_default_place=True)
    return place


def _tail(evaluator: Any, ranks: Any, data: SplitData) -> dict[str, Any]:
    from rd_tf.evaluation.long_tail import recall_of_tail, tail_items

    is_tail = tail_items(data, TAIL_SHARE)
    recall = recall_of_tail(ranks, evaluator.held_out, is_tail, TAIL_CUTOFF)
    targets = int(is_tail[evaluator.held_out.targets].sum())
    return {"share": TAIL_SHARE, "items": int(is_tail.sum()), "targets": targets, f"recall@{TAIL_CUTOFF}": recall}


def _record(board: Board, row: Row, seed: int, data: SplitData, tail: dict[str, Any]) -> dict[str, Any]:
    """What `row.json` holds: the role, whom the row learned from, with the fingerprint of every part, and the tail."""
    taught = board.taught(row)
    fingerprints: dict[str, str | None] = {}
    if taught is not None:
        trained = {each.name: each for each in board.teacher_rows(row)}
        for name in taught.parts:
            if name in trained:
                fingerprints[name] = model_fingerprint(board.run(trained[name], seed))
            else:
                only = Taught(name, {name: 1.0}, "", taught.ease_l2 if name == "ease" else 0.0)
                fingerprints[name] = teacher_names(board, row, seed, only).fingerprint(data)
    described = dataclasses.asdict(taught) if taught is not None else None
    return {"role": row.role, "taught": described, "fingerprints": fingerprints, "tail": tail}


if __name__ == "__main__":
    command_line.run(job)
