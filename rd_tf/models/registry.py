"""Rankers by name: made from flags, saved to and loaded from a run directory."""

import dataclasses
import errno
import hashlib
import os
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np

from rd_tf import plugins, run_directory
from rd_tf.models.ranker import SequenceRanker
from rd_tf.storage import InputError, atomic_file


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A ranker to be made.

    Attributes:
        name: of the registry, such as "caser".
        arguments: keywords of its constructor beside the number of users and items.
    """

    name: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, flags: dict[str, Any]) -> "ModelConfig":
        """The ranker that flags of `rd_tf.train` describe.

        Raises:
            InputError: an unknown ranker.
        """
        plugin = plugins.find(plugins.RANKERS, "model", flags["model"])
        arguments = {name: flags[name] for name in ("sequence_length", "dim", "seed")}
        arguments |= plugin.arguments(flags)
        arguments |= {"unknown_user": flags["user_dropout"] > 0, "dtype": flags["dtype_policy"]}
        return cls(flags["model"], arguments)


def make_model(config: ModelConfig, num_users: int, num_items: int) -> SequenceRanker:
    """Makes an untrained ranker.

    Args:
        config: which.
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.

    Raises:
        InputError: its constructor refuses the arguments.
    """
    cls = plugins.find(plugins.RANKERS, "model", config.name).load()
    try:
        model = cls(num_users, num_items, **config.arguments)
    except ValueError as error:
        raise InputError(f"--model={config.name}: {error}; change the flags of these names") from None
    if not isinstance(model, SequenceRanker) or not hasattr(model, "item_table"):
        raise InputError(f"--model={config.name}: its constructor must call build_item_table()")
    return model


def has_short_windows(name: str, choice: str) -> bool:
    """Whether a ranker is trained on windows of fewer than L items, too.

    Args:
        name: of the registry, such as "sasrec".
        choice: "on", "off", or "auto" for what the ranker's class asks for.

    Raises:
        InputError: an unknown ranker.
    """
    if choice != "auto":
        return choice == "on"
    return bool(getattr(plugins.find(plugins.RANKERS, "model", name).load(), "short_windows", False))


def weights_fingerprint(model: SequenceRanker) -> str:
    """SHA-256 (hex) of every weight: equal exactly when the weights are, bit for bit."""
    digest = hashlib.sha256()
    for weight in model.trainable_weights:
        digest.update(f"{weight.name}{tuple(weight.shape)}".encode())
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()


def save_model(model: SequenceRanker, run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Writes `model.weights.h5` and returns what the run's manifest must hold under "model"."""
    path = Path(run_dir) / run_directory.WEIGHTS
    with atomic_file(path) as temporary:
        # On a disk without room for it HDF5 ends the process without a word.
        with open(temporary, "wb") as file:
            _reserve(file, 4 * model.count_params() + _HDF5_BYTES * (len(model.weights) + 16), path)
        model.save_weights(temporary)
    names = [name for name, plugin in plugins.RANKERS.items() if plugin.load() is type(model)]
    if not names:
        raise ValueError(
            f"{type(model).__name__} is not registered; decorate it with @rd_tf.register_ranker to save and load it"
        )
    config = {key: value for key, value in model.get_config().items() if key not in ("name", "trainable", "dtype")}
    return {
        "class": names[0],
        "config": config,
        "dtype_policy": model.dtype_policy.name,
        "parameters": model.count_params(),
        "fingerprint": weights_fingerprint(model),
    }


# Of a weight's name and place in the file.
_HDF5_BYTES = 4096


def _reserve(file: IO[bytes], size: int, path: Path) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(error.errno, error.strerror, str(path)) from None
        # A file system that cannot reserve.


def load_model(run_dir: str | os.PathLike[str], flag: str = "run_dir") -> SequenceRanker:
    """Reads a trained ranker.

    Args:
        run_dir: directory of a finished run.
        flag: the flag that named it, for messages.

    Raises:
        InputError: no finished run there, or its weights are missing, damaged or another run's.
    """
    described = run_directory.load_run_manifest(run_dir, flag)["model"]
    path = Path(run_dir) / run_directory.WEIGHTS
    if described["class"] not in plugins.RANKERS:
        raise InputError(
            f"--{flag}={run_dir} holds a model {described['class']!r}; known are {', '.join(plugins.RANKERS)}, others "
            "with --import_module"
        )
    try:
        model = plugins.RANKERS[described["class"]].load()(**described["config"], dtype=described["dtype_policy"])
    except (TypeError, ValueError) as error:
        raise InputError(f"--{flag}={run_dir}: its manifest.json describes no usable model ({error})") from None
    try:
        model.load_weights(path)
    # HDF5 says RuntimeError of some damage.
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read ({first}); train the model again") from None
    if weights_fingerprint(model) != described["fingerprint"]:
        raise InputError(f"{path} is not the file that this run's manifest.json describes; train the model again")
    return model
