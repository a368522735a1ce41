"""python -m pipelines.tfrs_teacher: a two-tower teacher of TensorFlow Recommenders, as a file of lists."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rd_tf import command_line
from rd_tf.flag_definitions import protocol_of
from rd_tf.storage import InputError

_NEEDED = {"tensorflow_recommenders": "TensorFlow Recommenders", "tf_keras": "Keras 2 (tf-keras)"}


def tfrs_teacher(
    *,
    dataset: str,
    split: str,
    output: str,
    k: int,
    dim: int,
    sequence_length: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    l2: float,
    dropout: float,
    seed: int,
    block_size: int,
    force: bool,
    split_by: str = "auto",
    seen_items: str = "auto",
) -> str:
    """Trains a two-tower model of TensorFlow Recommenders and writes its best K items for every user, as raw ids.

    The user's vector is that of the user plus the mean of those of the last --sequence_length items, the loss a softmax
    over the items of the batch. It learns from the training rows of --split, and lists items with a training row that
    are not among the user's own (unless --seen_items=keep). The file, .parquet or .csv, has the columns user_id, rank
    (from 1), item_id and score, user after user, best first; rd_tf.teach --lists --score_column=score reads it. Unless
    --split=all, the metrics on the held-out items are printed. TensorFlow Recommenders needs Keras 2, and runs in a
    process of its own.

    Returns:
        The file's path.

    Raises:
        InputError: a flag or the dataset cannot be used, or TensorFlow Recommenders is not installed.
    """
    for module, name in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{name} is not installed; pip install -r requirements-tfrs.txt (the extra tfrs)")
    if not dataset:
        raise InputError("--dataset is empty; name a dataset directory")
    if not output or Path(output).suffix not in (".parquet", ".csv"):
        raise InputError(f"--output={output} has to end in .parquet or .csv; name such a file")
    if Path(output).exists() and (not force or Path(output).is_dir()):
        raise InputError(f"--output={output} exists already; name another file or pass --force to replace it")
    import numpy as np

    from rd_tf.data.windows import open_dataset

    protocol = protocol_of(split, split_by, seen_items)
    data = open_dataset(dataset).split(protocol.name)
    is_candidate = data.is_candidate
    if k > is_candidate.sum():
        raise InputError(f"--k={k} is larger than the {is_candidate.sum()} items with a training row; lower it")
    settings = {
        "dataset": dataset,
        "split": data.name,
        "dim": dim,
        "sequence_length": sequence_length,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "l2": l2,
        "dropout": dropout,
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as directory:
        vectors = Path(directory) / "vectors.npz"
        _train(settings | {"vectors": str(vectors)}, Path(directory) / "errors.txt")
        with np.load(vectors) as arrays:
            users, items = arrays["users"], arrays["items"].T.copy()
    if not (np.isfinite(users).all() and np.isfinite(items).all()):
        raise InputError("the towers' weights are not finite; train them with a smaller --learning_rate")
    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.evaluation.evaluator import Evaluator
    from rd_tf.evaluation.ranks import block_rows
    from rd_tf.runtime import blocks_at_once, progress_bar, share_cores
    from rd_tf.teacher.scoring import best_items
    from rd_tf.teacher.user_lists import UserLists, write_user_lists

    share_cores(0)
    if split != "all":
        cutoffs = [n for n in (3, 10, 100) if n <= data.num_items]
        metrics = Evaluator(data, 1, cutoffs).evaluate_scores(lambda some, _: users[some] @ items).metrics
        chosen = ("map", *(f"{name}@{n}" for name in ("precision", "recall") for n in cutoffs))
        print(f"{data.name}: " + ", ".join(f"{name} {metrics[name]:.4f}" for name in chosen), flush=True)

    def list_users(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = users[some] @ items
        scores[:, ~is_candidate] = -np.inf
        found, values = best_items(scores, data.kept_out(some), k)
        # A list is shorter where the user has seen nearly everything.
        return np.where(np.isfinite(values), found, 0), values

    lists = UserLists(list_users, block_rows(block_size, data.num_items + 1), blocks_at_once(), True)
    everybody = np.arange(data.num_users, dtype=np.int32)
    with progress_bar("lists", len(everybody), "users") as advance:
        rows, short = write_user_lists(output, lists, everybody, data.interactions, k, advance)
    print(f"wrote {output}: {rows:,} rows, {len(everybody):,} users, {short:,} of them with fewer than {k} items")
    return output


def _train(settings: dict[str, Any], errors: Path) -> None:
    """Trains the towers in a process with Keras 2, and hands on what it says."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    command = [sys.executable, "-m", "pipelines.tfrs_towers", json.dumps(settings)]
    with (
        open(errors, "w", encoding="utf-8") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except BaseException:
            process.kill()
            raise
    if process.returncode < 0:
        raise InputError(
            f"signal {-process.returncode} has ended the training of the towers, as it does where memory runs out; "
            "lower --dim or --batch_size, or run it on a larger machine"
        )
    if process.returncode:
        raise RuntimeError(f"the training of the towers has failed:\n{errors.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    command_line.run(tfrs_teacher)
