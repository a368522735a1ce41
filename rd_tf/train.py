"""python -m rd_tf.train: trains a ranker, alone or distilled from a teacher."""

import contextlib
from pathlib import Path
from typing import Any

from rd_tf import command_line, plugins, run_directory
from rd_tf.runtime import cluster
from rd_tf.storage import InputError, directory_lock, remove, replace_directory

# Flags that say where or how fast, not what: a finished run is the same run whatever they were.
# The dataset and the teacher are compared by their fingerprints.
NO_PART_OF_THE_RESULT = {
    "run_dir",
    "dataset",
    "teacher",
    "force",
    "steps_per_call",
    "threads_per_operation",
    "block_size",
    "checkpoint_minutes",
    # Replicas take the steps that one device would take, up to rounding.
    "strategy",
    "replicas",
    # Says where the ranker and the losses come from, which are compared by their names.
    "import_module",
}
# What a training without a teacher does not look at.
DISTILLATION_FLAGS = {
    "k",
    "mask",
    "distillation_loss",
    "alpha",
    "position_temperature",
    "discrepancy_sharpness",
    "discrepancy_start_epoch",
    "rank_samples",
    "exact_rank",
    "renormalize_weights",
}
TRAIN_FLAGS = (
    "dataset",
    "run_dir",
    "split",
    "teacher",
    "import_module",
    "model",
    "dim",
    "sequence_length",
    "target_length",
    "vertical_filters",
    "horizontal_filters",
    "conv_activation",
    "dense_activation",
    "dropout",
    "user_dropout",
    "history",
    "history_exponent",
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "warmup_steps",
    "l2",
    "negatives",
    "validate_every",
    "early_stopping",
    "ranking_loss",
    "k",
    "mask",
    "distillation_loss",
    "alpha",
    "position_temperature",
    "discrepancy_sharpness",
    "discrepancy_start_epoch",
    "rank_samples",
    "exact_rank",
    "renormalize_weights",
    "cutoffs",
    "seed",
    "strategy",
    "replicas",
    "dtype_policy",
    "steps_per_call",
    "threads_per_operation",
    "block_size",
    "checkpoint_minutes",
    "force",
)


def train(**flags: Any) -> dict[str, Any]:
    """Trains a ranker on a dataset directory and evaluates it on the held-out part.

    Without --teacher it learns from the ranking loss alone; with --teacher also from the teacher's top-K lists. With
    --split=validation the epoch with the best validation MAP is kept; with --split=test the last one, and the test part
    is read once, at the end. A finished run with the same flags is kept as it is; --force replaces it once the new one
    is finished. A run that was stopped or killed goes on from its last checkpoint when the same command is given again,
    and ends with the same weights as one that was not.

    On several machines, give each the same command, a TF_CONFIG of its own in the environment and a --run_dir on a disk
    that all of them share.

    Args:
        **flags: values of `TRAIN_FLAGS` and of plug-ins' flags; those not given have the command's defaults.

    Raises:
        InputError: a flag, the dataset, the teacher or the run directory cannot be used.
    """
    flags = command_line.complete(train, flags)
    dataset, run_dir, teacher, force = (flags[name] for name in ("dataset", "run_dir", "teacher", "force"))
    if not dataset:
        raise InputError("--dataset is empty; name a dataset directory")
    if not run_dir:
        raise InputError("--run_dir is empty; name a directory for the run")
    # Refused before anything is written: a wrong dataset or teacher must not leave a run directory behind.
    from rd_tf.data.dataset import load_manifest

    dataset_fingerprint = load_manifest(dataset)["fingerprint"]
    for name, path in (("dataset", dataset), ("teacher", teacher)):
        if path and Path(path).resolve() == Path(run_dir).resolve():
            raise InputError(f"--run_dir={run_dir} is the --{name} too, which it would replace; name another directory")
    teacher_fingerprint = _teacher_fingerprint(teacher)
    directory = Path(run_dir)
    identity = {"flags": flags, "dataset": dataset_fingerprint, "teacher": teacher_fingerprint}
    index, _ = cluster()
    with directory_lock(directory) if index == 0 else contextlib.nullcontext():
        finished = run_directory.is_finished_run(directory)
        if finished and not force:
            manifest = run_directory.load_run_manifest(directory)
            described = (manifest.get("teacher") or {}).get("teacher")
            before = {
                "flags": manifest.get("flags"),
                "dataset": manifest["dataset"]["fingerprint"],
                "teacher": described,
            }
            _check_same_run(directory, "a finished run", before, identity)
            if index == 0:
                # There where the run was killed between its manifest and its end.
                remove(directory / run_directory.CHECKPOINT)
            print(f"run kept: {run_dir}", flush=True)
            return manifest
        # Beside a finished run, which stays until the new one is whole.
        place = directory.absolute().with_name(f".new-{directory.name}") if finished else directory
        if index == 0 or not force:
            _check_unfinished(place, identity, force)
        from rd_tf.runtime import import_quietly, share_cores

        import_quietly()
        from rd_tf.training.run import train_run
        from rd_tf.training.workers import make_workers, prepare_devices

        share_cores(flags["threads_per_operation"])
        prepare_devices(flags["strategy"], flags["replicas"])
        manifest = train_run(place, flags, identity, make_workers(flags["strategy"], flags["replicas"]))
        if finished and index == 0:
            replace_directory(place, directory)
        return manifest


train.flag_names = TRAIN_FLAGS  # type: ignore[attr-defined]


def flags_without_part(flags: dict[str, Any]) -> set[str]:
    """Names of the flags that have no part in what a training with these flags results in, or are compared otherwise.

    Args:
        flags: of a training; `model` and `teacher` decide.
    """
    unused = set() if flags["teacher"] else set(DISTILLATION_FLAGS)
    unused |= plugins.flags_of_others(plugins.RANKERS, flags["model"])
    unused |= plugins.flags_of_others(plugins.RANKING_LOSSES, flags["ranking_loss"])
    unused |= plugins.flags_of_others(plugins.DISTILLATION_LOSSES, flags["distillation_loss"])
    return NO_PART_OF_THE_RESULT | unused


def _teacher_fingerprint(teacher: str) -> str | None:
    """Fingerprint of the weights of a teacher, given as a run directory or a cache; None without one."""
    if not teacher:
        return None
    from rd_tf.data.teacher_lists import is_teacher_cache, load_cache_manifest

    if not Path(teacher).is_dir():
        raise InputError(f"--teacher={teacher} is not a directory; name a teacher's run directory or a teacher cache")
    if is_teacher_cache(teacher):
        return str(load_cache_manifest(teacher)["teacher"])
    return str(run_directory.load_run_manifest(teacher, "teacher")["model"]["fingerprint"])


def _check_unfinished(directory: Path, identity: dict[str, Any], force: bool) -> None:
    """Checks that the checkpoints in a directory are of this run; with `force`, those of another are removed."""
    # Imports NumPy, which would make --help slow.
    from rd_tf.training.checkpoints import checkpointed_run

    checkpoints = directory / run_directory.CHECKPOINT
    run = checkpointed_run(checkpoints)
    if run is None:
        return
    try:
        _check_same_run(directory, "an unfinished run", run, identity)
    except InputError:
        if not force:
            raise
        remove(checkpoints)


def _check_same_run(directory: Path, what: str, run: dict[str, Any], identity: dict[str, Any]) -> None:
    """Checks that a run in a directory is the one that is asked for; both as `identity` in `train`."""
    before, now = dict(run["flags"] or {}), dict(identity["flags"])
    for name in flags_without_part(now):
        before.pop(name, None)
        now.pop(name, None)
    # Runs of earlier versions know no such flags.
    before.setdefault("user_dropout", 0.0)
    before.setdefault("warmup_steps", 0)
    before.setdefault("early_stopping", 0)
    before.setdefault("ranking_loss", "pointwise")
    before.setdefault("distillation_loss", "weighted_pointwise")
    before |= {"dataset": run["dataset"], "teacher": run["teacher"]}
    now |= {"dataset": identity["dataset"], "teacher": identity["teacher"]}
    for name, value in now.items():
        if before.get(name) != value:
            raise InputError(
                f"--run_dir={directory} holds {what} with --{name}={_short(before.get(name))}, not "
                f"{_short(value)}; name another directory, or --force replaces it"
            )


def _short(value: Any) -> str:
    return "(none)" if value is None else str(value)[:16] if isinstance(value, str) else str(value)


if __name__ == "__main__":
    command_line.run(train)
