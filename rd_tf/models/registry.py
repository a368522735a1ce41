"""Rankers by name: made from flags, saved to and loaded from a run directory."""

import hashlib
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rd_tf import run_directory
from rd_tf.flag_definitions import MODEL_FLAGS
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.models.ranker import SequenceRanker
from rd_tf.storage import InputError, atomic_file

MODELS: dict[str, type[SequenceRanker]] = {"caser": Caser, "fossil": Fossil}


def make_model(flags: dict[str, Any], num_users: int, num_items: int) -> SequenceRanker:
    """Makes an untrained ranker.

    Args:
        flags: those of `rd_tf.train`.
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.

    Raises:
        InputError: the flags leave the model without a part it needs.
    """
    if flags["model"] == "caser" and flags["vertical_filters"] + flags["horizontal_filters"] == 0:
        raise InputError(
            "--vertical_filters=0 and --horizontal_filters=0 leave Caser without filters; raise one of them"
        )
    names = ("sequence_length", "dim", "seed", *MODEL_FLAGS[flags["model"]])
    arguments = {name: flags[name] for name in names}
    unknown_user = flags["user_dropout"] > 0
    return MODELS[flags["model"]](
        num_users, num_items, **arguments, unknown_user=unknown_user, dtype=flags["dtype_policy"]
    )


def weights_fingerprint(model: SequenceRanker) -> str:
    """SHA-256 (hex) of every weight: equal exactly when the weights are, bit for bit."""
    digest = hashlib.sha256()
    for weight in model.trainable_weights:
        digest.update(f"{weight.name}{tuple(weight.shape)}".encode())
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()


def save_model(model: SequenceRanker, run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Writes `model.weights.h5` and returns what the run's manifest must hold under "model"."""
    with atomic_file(Path(run_dir) / run_directory.WEIGHTS) as temporary:
        model.save_weights(temporary)
    name = next(name for name, cls in MODELS.items() if type(model) is cls)
    config = {key: value for key, value in model.get_config().items() if key not in ("name", "trainable", "dtype")}
    return {
        "class": name,
        "config": config,
        "dtype_policy": model.dtype_policy.name,
        "parameters": model.count_params(),
        "fingerprint": weights_fingerprint(model),
    }


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
    if described["class"] not in MODELS:
        raise InputError(
            f"--{flag}={run_dir} holds a model {described['class']!r}; this version has {', '.join(MODELS)}"
        )
    try:
        model = MODELS[described["class"]](**described["config"], dtype=described["dtype_policy"])
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
