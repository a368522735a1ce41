"""python -m rd_tf.train: trains a ranker, alone or distilled from a teacher."""

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rd_tf import command_line, plugins, run_directory
from rd_tf.flag_definitions import with_protocol
from rd_tf.runtime import cluster
from rd_tf.storage import InputError, directory_lock, remove, replace_directory

TRAIN_FLAGS = (
    "dataset",
    "run_dir",
    "split",
    "split_by",
    "seen_items",
    "teacher",
    "import_module",
    "model",
    "dim",
    "sequence_length",
    "target_length",
    "short_windows",
    "vertical_filters",
    "horizontal_filters",
    "conv_activation",
    "dense_activation",
    "dropout",
    "user_dropout",
    "history",
    "history_exponent",
    "heads",
    "blocks",
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "warmup_steps",
    "l2",
    "negatives",
    "shared_negatives",
    "negative_sampling",
    "validate_every",
    "early_stopping",
    "ranking_loss",
    "calibration",
    *run_directory.DISTILLATION_FLAGS,
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
    # Refused before anything is written: a wrong flag, dataset or teacher must not leave a run directory behind.
    plugins.find(plugins.RANKERS, "model", flags["model"])
    plugins.find(plugins.RANKING_LOSSES, "ranking_loss", flags["ranking_loss"])
    plugins.find(plugins.DISTILLATION_LOSSES, "distillation_loss", flags["distillation_loss"])
    from rd_tf.data.dataset import load_manifest

    dataset_fingerprint = load_manifest(dataset)["fingerprint"]
    for name, path in (("dataset", dataset), ("teacher", teacher)):
        if path and Path(path).resolve() == Path(run_dir).resolve():
            raise InputError(f"--run_dir={run_dir} is the --{name} too, which it would replace; name another directory")
    fingerprint = teacher_fingerprint(teacher)
    flags = with_protocol(flags, teacher_split(teacher))
    directory = Path(run_dir)
    identity = {"flags": flags, "dataset": dataset_fingerprint, "teacher": fingerprint}
    index, _ = cluster()
    with directory_lock(directory) if index == 0 else contextlib.nullcontext():
        finished = run_directory.is_finished_run(directory)
        if finished and not force:
            manifest = run_directory.load_run_manifest(directory)
            before = {
                "flags": manifest.get("flags"),
                "dataset": manifest["dataset"]["fingerprint"],
                "teacher": _trained_from(manifest, fingerprint),
            }
            _check_same_run(directory, "a finished run", before, identity)
            if index == 0:
                # There where the run was killed between its manifest and its end.
                remove(directory / run_directory.CHECKPOINT)
                # There where a --force was killed.
                remove(_place_beside(directory))
            print(f"run kept: {run_dir}", flush=True)
            return manifest
        # Beside a finished run, which stays until the new one is whole.
        place = _place_beside(directory) if finished else directory
        from rd_tf.runtime import import_quietly, share_cores

        import_quietly()
        if index == 0 or not force:
            _check_unfinished(place, identity, force)
        from rd_tf.training.run import train_run
        from rd_tf.training.workers import make_workers, prepare_devices

        share_cores(flags["threads_per_operation"])
        prepare_devices(flags["strategy"], flags["replicas"])
        manifest = train_run(place, flags, identity, make_workers(flags["strategy"], flags["replicas"]))
        if finished and index == 0:
            replace_directory(place, directory)
        return manifest


train.flag_names = TRAIN_FLAGS  # type: ignore[attr-defined]


# Manifests older than a flag are read as if it had its default; runs older than --optimizer used adam, which is not.
# What runs of versions without the flag had, where that is not its default.
_BEFORE_IT_EXISTED = {"optimizer": "adam", "ranking_loss": "pointwise", "distillation_loss": "weighted_pointwise"}


def flag_difference(
    found: dict[str, Any], expected: dict[str, Any], but: Collection[str] = ()
) -> tuple[str, Any, Any] | None:
    """The first flag that makes one result another than the other.

    Flags that cannot change the result are left out: those of other models and, where one of the two had no teacher,
    those of distillation. Of --teacher only counts whether there was one: which one, fingerprints tell better than
    paths.

    Args:
        found: flags of `rd_tf.train`, as a manifest holds them.
        expected: flags of `rd_tf.train` too.
        but: names of more flags to leave out.

    Returns:
        The flag's name, its value in `found` and in `expected`; None where all are the same.
    """
    before, now = _complete(found), _complete(expected)
    if bool(before["teacher"]) != bool(now["teacher"]) and "teacher" not in but:
        return "teacher", before["teacher"], now["teacher"]
    left_out = {*run_directory.flags_without_part(before), *run_directory.flags_without_part(now), *but}
    for name, value in now.items():
        if name not in left_out and not _is_same(before[name], value):
            return name, before[name], value
    return None


def _complete(flags: dict[str, Any]) -> dict[str, Any]:
    defaults = {**command_line.default_flags(train), **_BEFORE_IT_EXISTED}
    return with_protocol({name: flags.get(name, value) for name, value in defaults.items()})


def _is_same(one: Any, other: Any) -> bool:
    # 1 == 1.0 is no difference, 1 == True is one.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _place_beside(directory: Path) -> Path:
    return directory.absolute().with_name(f".new-{directory.name}")


def _trained_from(manifest: dict[str, Any], fingerprint: str | None) -> str | None:
    """What `teacher_fingerprint` said of the teacher of a finished run.

    Args:
        manifest: the run's.
        fingerprint: of the teacher that is given now; it says whether a cache is.
    """
    lists = manifest.get("teacher")
    if not isinstance(lists, dict):
        return None
    from rd_tf.data.teacher_lists import LISTS, lists_checksum

    return lists_checksum(lists) if (fingerprint or "").startswith(LISTS) else lists.get("teacher")


def teacher_fingerprint(teacher: str) -> str | None:
    """What a teacher is known by: a run directory by its weights, a cache by its lists; None without one.

    Raises:
        InputError: there is neither a finished run nor a teacher cache.
    """
    if not teacher:
        return None
    from rd_tf.data.teacher_lists import is_teacher_cache, lists_checksum

    manifest = _teacher_manifest(teacher)
    return lists_checksum(manifest) if is_teacher_cache(teacher) else str(manifest["model"]["fingerprint"])


def teacher_split(teacher: str) -> str:
    """The `split` of the manifest of a teacher, a run or a cache; empty without one; errors as above."""
    return str(_teacher_manifest(teacher)["split"]) if teacher else ""


def _teacher_manifest(teacher: str) -> dict[str, Any]:
    from rd_tf.data.teacher_lists import is_teacher_cache, load_cache_manifest

    if not Path(teacher).is_dir():
        raise InputError(f"--teacher={teacher} is not a directory; name a teacher's run directory or a teacher cache")
    if is_teacher_cache(teacher):
        return load_cache_manifest(teacher)
    return run_directory.load_run_manifest(teacher, "teacher")


def _check_unfinished(directory: Path, identity: dict[str, Any], force: bool) -> None:
    """Checks that the checkpoints in a directory are of this run; with `force`, those of another are removed."""
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
    # Which teacher, fingerprints tell better than paths.
    difference = flag_difference(run["flags"] or {}, identity["flags"], but={"teacher"})
    for name in ("teacher", "dataset"):
        if difference is None and run[name] != identity[name]:
            difference = name, run[name], identity[name]
    if difference is not None:
        name, before, now = difference
        if name == "epochs" and what == "a finished run" and now > before:
            raise InputError(
                f"--run_dir={directory} holds {what} with --epochs={before}, and cannot go on to {now}: a finished run "
                "keeps its weights, not the optimizer's state; name another directory, or --force trains it anew"
            )
        raise InputError(
            f"--run_dir={directory} holds {what} with --{name}={_short(before)}, not {_short(now)}; name another "
            "directory, or --force replaces it"
        )


def _short(value: Any) -> str:
    return "(none)" if value is None else str(value)[:16] if isinstance(value, str) else str(value)


if __name__ == "__main__":
    command_line.run(train)
