"""How long a ranker takes for its lists, measured on this machine once for every shape of model."""

import os
import statistics
from pathlib import Path
from typing import Any

from pipelines.leaderboard.rows import Board, Row
from pipelines.paper.efficiency import BLOCK, DEVICE, K, list_all, turns
from rd_tf import run_directory
from rd_tf.storage import InputError, json_sha256, read_manifest, write_json

FILE = "speed.json"


def shape_of(manifest: dict[str, Any]) -> str:
    """What rankers that take equally long have in common: the class and its arguments, but for the seed."""
    model = manifest["model"]
    arguments = {name: value for name, value in model["config"].items() if name != "seed"}
    return json_sha256([model["class"], arguments, model["dtype_policy"]])[:16]


def read_speed(directory: Path) -> dict[str, Any]:
    """What a dataset's `speed.json` holds, by shape; nothing where it is missing.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return {}
    shapes = read_manifest(path, {"shapes": dict})["shapes"]
    for name, found in shapes.items():
        seconds = found.get("seconds") if isinstance(found, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
            raise InputError(f"{path} is damaged (no usable seconds of {name}); delete it to measure again")
    return dict(shapes)


def measure_missing(board: Board, rows: list[Row], seeds: list[int]) -> list[str]:
    """Measures the shapes that `speed.json` lacks, of runs that are those of the evidence.

    For every user a list of 10 items is made from the whole history, 1,024 users a call of a graph, on the CPU; models
    take turns, and the median of 5 turns counts.

    Args:
        board: all rows.
        rows: those to measure.
        seeds: whose runs may be taken.

    Returns:
        A phrase for every dataset that could not be measured.
    """
    failures = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        known, missing = read_speed(board.results / dataset), dict[str, Path]()
        for row in (row for row in rows if row.dataset == dataset and row.is_trained):
            for seed in seeds:
                if board.has_run(row, seed):
                    shape = shape_of(run_directory.load_run_manifest(board.run(row, seed)))
                    if shape not in known:
                        missing.setdefault(shape, board.run(row, seed))
        if not missing:
            continue
        print(f"{dataset}: measuring the speed of {len(missing)} models", flush=True)
        try:
            found = _measure(missing, board.datasets_dir / dataset)
            write_json(board.results / dataset / FILE, {"shapes": {**known, **found}})
        except (InputError, OSError) as error:
            failures.append(f"{dataset}: the speed could not be measured ({error})")
    return failures


def _measure(runs: dict[str, Path], dataset: Path) -> dict[str, Any]:
    from rd_tf.runtime import import_quietly

    import_quietly()
    import tensorflow as tf

    from rd_tf.data.dataset import load_dataset
    from rd_tf.models.registry import load_model

    interactions, load = load_dataset(dataset), os.getloadavg()[0]
    with tf.device(DEVICE):
        models = {shape: load_model(run) for shape, run in runs.items()}
        seconds, device = turns({shape: list_all(model, interactions) for shape, model in models.items()})
    thousands = interactions.num_users / 1000
    machine = {**run_directory.environment()["machine"], "load": load}
    return {
        shape: {
            "model": type(model).__name__,
            "run": str(runs[shape]),
            "parameters": model.count_params(),
            "seconds": statistics.median(seconds[shape]) / thousands,
            "seconds_of_repeats": [round(each / thousands, 6) for each in seconds[shape]],
            "k": K,
            "block": BLOCK,
            "device": device,
            "machine": machine,
        }
        for shape, model in models.items()
    }
