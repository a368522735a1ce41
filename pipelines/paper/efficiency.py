"""What a cell's teacher and student cost to serve, measured on this machine."""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.paper.chains import Cell, run_of
from pipelines.records import model_fingerprint
from rd_tf import run_directory
from rd_tf.storage import InputError, read_manifest, write_json

FILE = "efficiency.json"
# The teacher and the model that is served; the student alone is of the latter's size.
MEASURED_ROLES = ("teacher", "distilled")
_OF_ROLES = {
    "fingerprint": str,
    "parameters": int,
    "seconds": int | float,
    "seconds_of_repeats": list,
    "savedmodel_bytes": int | float,
}
_REQUIRED = {
    "k": int,
    "block": int,
    "seed": int,
    "machine.processor": str,
    "machine.cores": int,
    **{f"roles.{role}.{name}": kind for role in MEASURED_ROLES for name, kind in _OF_ROLES.items()},
}
K, BLOCK, _REPEATS = 10, 1024, 5
# The paper's seconds are a CPU's, and a machine with a GPU would otherwise measure another thing.
DEVICE = "/CPU:0"


def measure_efficiency(runs: dict[str, Path], dataset: str, seed: int) -> dict[str, Any]:
    """Measures parameters, seconds for a list of 10 items for every user, and bytes of the SavedModel.

    A query is the user's whole history of the dataset, its last L items are kept out of the list, and 1,024 users are
    listed by one call of a graph; queries are laid out before the clock starts. Teacher and student take turns, and
    their median of 5 turns counts. A GPU is left alone.

    Args:
        runs: role -> finished run directory, of "teacher" and "distilled".
        dataset: the dataset directory.
        seed: of the runs, for the record.

    Returns:
        JSON values: `roles` -> `fingerprint` of the weights, `parameters`, `seconds`, `seconds_of_repeats` and
        `savedmodel_bytes`; users, items, k, block, seed, `device`, and `machine` with processor, cores and the load of
        its last minute before the measurement.

    Raises:
        InputError: a run or the dataset cannot be used, or they do not belong together.
        RuntimeError: a SavedModel does not answer as its model does.
    """
    from rd_tf.runtime import import_quietly

    import_quietly()
    import tensorflow as tf

    from rd_tf.data.dataset import check_same_dataset, load_dataset
    from rd_tf.models.registry import load_model

    manifests = {role: run_directory.load_run_manifest(runs[role]) for role in MEASURED_ROLES}
    for role, manifest in manifests.items():
        check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", str(runs[role]))
    interactions = load_dataset(dataset)
    load = os.getloadavg()[0]
    with tf.device(DEVICE):
        models = {role: load_model(runs[role]) for role in MEASURED_ROLES}
        seconds, device = turns({role: list_all(model, interactions) for role, model in models.items()})
    environment = run_directory.environment()
    return {
        "k": K,
        "block": BLOCK,
        "users": interactions.num_users,
        "items": interactions.num_items,
        "seed": seed,
        "device": device,
        "roles": {
            role: {
                "fingerprint": manifests[role]["model"]["fingerprint"],
                "parameters": model.count_params(),
                "seconds": statistics.median(seconds[role]),
                "seconds_of_repeats": [round(each, 6) for each in seconds[role]],
                "savedmodel_bytes": _savedmodel_bytes(model, interactions),
            }
            for role, model in models.items()
        },
        **environment,
        "machine": {**environment["machine"], "load": load},
    }


def write_efficiency(directory: Path, runs: dict[str, Path], dataset: str, seed: int) -> None:
    """Measures and writes `efficiency.json`; arguments and errors as in `measure_efficiency`."""
    write_json(directory / FILE, measure_efficiency(runs, dataset, seed))


def read_efficiency(directory: Path) -> dict[str, Any] | None:
    """What a cell's `efficiency.json` holds; None where it is missing, or of other models than the evidence beside it.

    Args:
        directory: the cell's, with `seed-N/<role>/` too.

    Raises:
        InputError: the file is damaged.
    """
    if not (directory / FILE).is_file():
        return None
    measured: dict[str, Any] = read_manifest(directory / FILE, _REQUIRED)
    for role, name in itertools.product(MEASURED_ROLES, ("parameters", "seconds", "savedmodel_bytes")):
        if measured["roles"][role][name] <= 0:
            raise InputError(f"{directory / FILE} is damaged ({name} of {role} is not above 0); measure it again")
    evidence = directory / f"seed-{measured['seed']}"
    found = {role: measured["roles"][role]["fingerprint"] for role in MEASURED_ROLES}
    is_current = all(weights and weights == model_fingerprint(evidence / role) for role, weights in found.items())
    return measured if is_current else None


def turns(listers: dict[str, Callable[[], str]]) -> tuple[dict[str, list[float]], str]:
    """Seconds of every turn by name, and the device that the lists were made on; models take turns.

    Args:
        listers: name -> what `list_all` gives.
    """
    devices = sorted({once() for once in listers.values()})
    seconds: dict[str, list[float]] = {role: [] for role in listers}
    for _ in range(_REPEATS):
        for role, once in listers.items():
            begin = time.perf_counter()
            once()
            seconds[role].append(time.perf_counter() - begin)
    return seconds, ", ".join(devices)


def list_all(model: Any, interactions: Any) -> Callable[[], str]:
    """A function that makes one list of `K` items for every user, `BLOCK` users a call, and tells on which device.

    Args:
        model: a `SequenceRanker`.
        interactions: an `Interactions`, the model's; a query is a user's whole history.
    """
    import numpy as np
    import tensorflow as tf

    from rd_tf.data.windows import Dataset
    from rd_tf.models.ranker import Histories

    data = Dataset(interactions).split("all")
    blocks = []
    for begin in range(0, interactions.num_users, BLOCK):
        users = np.arange(begin, min(begin + BLOCK, interactions.num_users), dtype=np.int32)
        arrays = (users, data.seen.last(users, model.sequence_length), *(data.histories(model, users) or ()))
        blocks.append([tf.constant(array) for array in arrays])
    shapes = ([None], [None, model.sequence_length], *([[None]] * 2 if model.has_history else []))

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.int32) for shape in shapes], autograph=False)
    def recommend(user: tf.Tensor, sequence: tf.Tensor, *history: tf.Tensor) -> Any:
        return model.recommend(user, sequence, sequence, K, Histories(*history) if history else None)

    def once() -> str:
        for block in blocks:
            listed = recommend(*block)[0]
            # Waits for the result.
            listed.numpy()
        return str(listed.device).rpartition("device:")[2]

    return once


def _savedmodel_bytes(model: Any, interactions: Any) -> int:
    from rd_tf.serving.export import export_ranker
    from rd_tf.serving.publishing import ExportOptions

    with tempfile.TemporaryDirectory() as directory:
        ids = (interactions.user_ids, interactions.item_ids)
        version = export_ranker(model, *ids, Path(directory) / "model", ExportOptions(max_k=K))
        return sum(file.stat().st_size for file in version.rglob("*") if file.is_file())


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
        if not directory.is_dir() or read_efficiency(directory):
            continue
        seed = next((seed for seed in seeds if run_dir and _has_runs(cell, seed, Path(run_dir), directory)), None)
        if seed is None:
            print(f"{cell.name}: no runs of its evidence in {run_dir or '--run_dir'}, efficiency not measured")
        elif not (dataset / "manifest.json").is_file():
            print(f"{cell.name}: no dataset {dataset}, efficiency not measured")
        else:
            print(f"{cell.name}: measuring the efficiency", flush=True)
            runs = {role: run_of(cell, seed, role, Path(run_dir)) for role in MEASURED_ROLES}
            try:
                write_efficiency(directory, runs, str(dataset), seed)
            except (InputError, OSError, RuntimeError) as error:
                failures.append(f"{cell.name}: the efficiency could not be measured ({error})")
    return failures


def _has_runs(cell: Cell, seed: int, run_dir: Path, directory: Path) -> bool:
    found = [
        (model_fingerprint(run_of(cell, seed, role, run_dir)), model_fingerprint(directory / f"seed-{seed}" / role))
        for role in MEASURED_ROLES
    ]
    return all(of_run is not None and of_run == of_evidence for of_run, of_evidence in found)
