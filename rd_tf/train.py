"""python -m rd_tf.train: trains a ranker, alone or distilled from a teacher."""

from pathlib import Path
from typing import Any

from rd_tf import command_line, run_directory, storage
from rd_tf.errors import InputError

# Flags that say where or how fast, not what: a finished run is the same run whatever they were.
_NO_PART_OF_THE_RESULT = {"run_dir", "dataset", "teacher", "force", "steps_per_call", "block_size"}


def train(
    *,
    dataset: str,
    run_dir: str,
    split: str,
    teacher: str,
    model: str,
    dim: int,
    sequence_length: int,
    target_length: int,
    vertical_filters: int,
    horizontal_filters: int,
    conv_activation: str,
    dense_activation: str,
    dropout: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    l2: float,
    negatives: int,
    validate_every: int,
    k: int,
    mask: str,
    alpha: float,
    position_temperature: float,
    discrepancy_sharpness: float,
    discrepancy_start_epoch: int,
    rank_samples: int,
    exact_rank: bool,
    renormalize_weights: bool,
    cutoffs: list[str],
    seed: int,
    strategy: str,
    dtype_policy: str,
    steps_per_call: int,
    block_size: int,
    force: bool,
) -> dict[str, Any]:
    """Trains a ranker on a dataset directory and evaluates it on the held-out part.

    Without --teacher it learns from the ranking loss alone; with --teacher also from the teacher's top-K lists. With
    --split=validation the epoch with the best validation MAP is kept; with --split=test the last one, and the test part
    is read once, at the end. A finished run with the same flags is kept as it is.
    """
    flags = dict(locals())
    if not dataset:
        raise InputError("--dataset is empty; name a dataset directory")
    if not run_dir:
        raise InputError("--run_dir is empty; name a directory for the run")
    # Refused before anything is written: a wrong dataset or teacher must not leave a run directory behind.
    from rd_tf.data.dataset_directory import load_manifest

    dataset_fingerprint = load_manifest(dataset)["fingerprint"]
    if teacher and not Path(teacher).is_dir():
        raise InputError(f"--teacher={teacher} is not a directory; name a teacher's run directory or a teacher cache")
    with storage.directory_lock(run_dir):
        kept = None if force else _finished(Path(run_dir), flags, dataset_fingerprint)
        if kept is not None:
            print(f"run kept: {run_dir}")
            return kept
        from rd_tf.quiet_tensorflow import import_quietly

        import_quietly()
        from rd_tf.training.run import train_run

        return train_run(Path(run_dir), flags)


def _finished(directory: Path, flags: dict[str, Any], dataset: str) -> dict[str, Any] | None:
    if not run_directory.is_finished_run(directory):
        return None
    manifest = run_directory.load_run_manifest(directory)
    before = dict(manifest["flags"])
    for name, value in flags.items():
        if name not in _NO_PART_OF_THE_RESULT and before.get(name) != value:
            raise InputError(
                f"--run_dir={directory} holds a finished run with --{name}={before.get(name)}, not {value}; "
                "name another directory, or --force replaces it"
            )
    if manifest["dataset"]["fingerprint"] != dataset:
        raise InputError(
            f"--run_dir={directory} holds a finished run on the dataset {manifest['dataset']['fingerprint'][:16]}, not "
            f"{dataset[:16]}; name another directory, or --force replaces it"
        )
    return manifest


if __name__ == "__main__":
    command_line.run(train)
