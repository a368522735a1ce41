"""What many tests start from: the authors' numbers, a tiny world, a tiny trained run."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from authors_weights import authors_weights, getattr_path
from hypothesis import settings

from rd_tf.runtime import import_quietly

import_quietly()

# A busy machine is no failure, and CI should fail on a change, not on an unlucky draw.
settings.register_profile("rd_tf", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("rd_tf")

# Files of a minute or so. Begun first, they don't keep one process waiting for another at the end.
LONG = (
    "test_replicas",
    "test_workers",
    "test_resume",
    "test_examples",
    "test_distill",
    "test_export_ranker",
    "test_batching",
    "test_mixed_precision",
    "test_names",
    "test_interrupted_publishing",
    "test_door",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long files first, for `--no-loadscope-reorder`."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


CONFORMANCE = Path(__file__).parent / "conformance"
ACTIVATIONS = {"iden": "identity", "sigm": "sigmoid", "relu": "relu", "tanh": "tanh"}


@pytest.fixture(scope="session")
def conformance():
    """Reads a file of numbers that the authors' code produced."""
    return lambda name: json.loads((CONFORMANCE / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def caser_from_state():
    """Builds our Caser from the weights of the authors' Caser."""
    from rd_tf.models.caser import Caser

    def build(case: dict[str, Any], state: dict[str, Any], length: int) -> Caser:
        arrays = {name: np.array(value, "float32") for name, value in state.items()}
        model = Caser(
            num_users=len(arrays["user_embeddings.weight"]),
            num_items=len(arrays["item_embeddings.weight"]) - 1,
            sequence_length=length,
            dim=case["d"],
            vertical_filters=case["vertical_filters"],
            horizontal_filters=case["horizontal_filters"],
            conv_activation=ACTIVATIONS[case.get("conv_activation", "iden")],
            dense_activation=ACTIVATIONS[case.get("dense_activation", "sigm")],
            dropout=0.0,
        )
        for weight, value in authors_weights(model, arrays).items():
            getattr_path(model, weight).assign(value)
        return model

    return build


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """A dataset directory of the built-in world: 60 users, about 70 places."""
    from rd_tf.command_line import choose, default_flags
    from rd_tf.prepare import prepare

    path = tmp_path_factory.mktemp("data") / "tiny"
    flags = default_flags(prepare)
    size = {"synthetic_users": 60, "synthetic_items": 80, "synthetic_visits": 30.0}
    prepare(**choose(prepare, flags, format="synthetic", dataset=str(path), **size))
    return str(path)


@pytest.fixture(scope="session")
def sharded_dataset(tmp_path_factory, tiny_dataset):
    """The same in shards."""
    from tiny_shards import SHARDS

    from rd_tf.data.dataset import load_dataset, save_dataset

    path = tmp_path_factory.mktemp("data") / "sharded"
    save_dataset(load_dataset(tiny_dataset), path, {}, shards=SHARDS)
    return str(path)


@pytest.fixture(scope="session")
def train_flags():
    """Flags of a training run that takes a second."""
    from rd_tf.command_line import choose, default_flags
    from rd_tf.train import train

    def make(**changed: Any) -> dict[str, Any]:
        small = {
            "epochs": 2,
            "batch_size": 64,
            "dim": 8,
            "cutoffs": ["3", "5"],
            "learning_rate": 0.01,
            "rank_samples": 8,
            "validate_every": 5,
            "ranking_loss": "pointwise",
            "distillation_loss": "weighted_pointwise",
            "mask": "target",
        }
        return choose(train, default_flags(train), **{**small, "k": 5, "discrepancy_start_epoch": 1, **changed})

    return make


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory, tiny_dataset, train_flags):
    """A finished teacher's run directory."""
    from rd_tf.train import train

    path = str(tmp_path_factory.mktemp("runs") / "teacher")
    train(**train_flags(dataset=tiny_dataset, run_dir=path))
    return path


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory, tiny_dataset, tiny_teacher, train_flags):
    """A finished, distilled student's run directory."""
    from rd_tf.train import train

    path = str(tmp_path_factory.mktemp("runs") / "student")
    train(**train_flags(dataset=tiny_dataset, run_dir=path, teacher=tiny_teacher, dim=4))
    return path


@pytest.fixture(scope="session")
def tiny_fossil(tmp_path_factory, tiny_dataset, tiny_teacher, train_flags):
    """A finished run of Fossil, distilled from a Caser."""
    from rd_tf.train import train

    path = str(tmp_path_factory.mktemp("runs") / "fossil")
    train(**train_flags(dataset=tiny_dataset, run_dir=path, teacher=tiny_teacher, model="fossil", dim=4))
    return path


@pytest.fixture(scope="session")
def tiny_sasrec(tmp_path_factory, tiny_dataset, train_flags):
    """A finished run of SASRec, whose windows are short ones, too."""
    from rd_tf.train import train

    path = str(tmp_path_factory.mktemp("runs") / "sasrec")
    train(**train_flags(dataset=tiny_dataset, run_dir=path, model="sasrec", dim=4, heads=2, dropout=0.2))
    return path
