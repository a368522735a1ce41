"""A run directory, whatever happens to its files, is the run that was trained or is refused by every command."""

import json

import numpy as np
import pytest
from damage import damaged, damaged_json, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf import run_directory
from rd_tf.command_line import default_flags
from rd_tf.data.dataset import save_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.evaluate import evaluate
from rd_tf.export import export
from rd_tf.models.caser import Caser
from rd_tf.models.registry import load_model, save_model, weights_fingerprint
from rd_tf.storage import InputError, remove
from rd_tf.teach import teach

USERS, ITEMS, ROWS = 4, 12, 10
CHECKSUM = "manifest_sha256"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset and an untrained model of it, saved as a run."""
    root = tmp_path_factory.mktemp("root")
    generator = np.random.default_rng(0)
    items = np.concatenate([generator.permutation(ITEMS)[:ROWS] + 1 for _ in range(USERS)]).astype(np.int32)
    users, times = np.repeat(np.arange(USERS, dtype=np.int32), ROWS), np.tile(np.arange(ROWS, dtype=np.int64), USERS)
    ids = [f"u{number}" for number in range(USERS)], [f"i{number}" for number in range(ITEMS)]
    interactions = Interactions(users, items, times, *ids)
    save_dataset(interactions, root / "data", {})
    described = save_model(Caser(USERS, ITEMS, sequence_length=3, dim=2, horizontal_filters=2), root / "run")
    dataset = {"path": str(root / "data"), "fingerprint": interactions.fingerprint()}
    manifest = {"flags": {"target_length": 1, "model": "caser"}, "split": "test", "dataset": dataset, "teacher": None}
    run_directory.write_run_manifest(root / "run", {**manifest, "model": described, "seconds": 1.5})
    return root


@pytest.fixture(scope="module")
def manifest(root):
    return json.loads((root / "run" / "manifest.json").read_text())


@pytest.fixture(scope="module")
def weights(root):
    return (root / "run" / "model.weights.h5").read_bytes()


def commands(root):
    """Every command that reads a run, with what it writes."""
    dataset, run = str(root / "data"), str(root / "run")
    evaluated, listed, exported = root / "evaluated", root / "listed", root / "exported"
    small = {"split": "test", "cutoffs": ["3"], "block_size": 4}
    flags = {"dataset": dataset, "run_dir": run, "export_dir": str(exported), "export_name": "m", "max_k": 5}
    return {
        evaluated: lambda: evaluate(run_dir=run, dataset=dataset, output=str(evaluated), **small),
        listed: lambda: teach(
            teacher=run, dataset=dataset, cache=str(listed), k=3, mask="target", block_size=4, force=False
        ),
        exported: lambda: export(**default_flags(export) | flags),
    }


def check_commands(root):
    for written, command in commands(root).items():
        with pytest.raises(InputError):
            command()
        assert not written.exists()
    assert {path.name for path in root.iterdir()} == {"data", "run"}


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_manifest_is_refused_or_what_it_was(root, manifest, data):
    content = data.draw(damaged_json(manifest).map(str.encode) | damaged(json.dumps(manifest).encode()))
    (root / "run" / "manifest.json").write_bytes(content)
    with refusing(root / "run"):
        found = run_directory.load_run_manifest(root / "run")
        # A run of an earlier version has no checksum, and only what readers need of its values is checked.
        assert CHECKSUM not in found or found == manifest


OTHER = {
    "another split": ("split", "train"),
    "flags that are a list": ("flags", []),
    "a teacher that is a word": ("teacher", "runs/teacher"),
    "a model nobody knows": ("model.class", "gru4rec"),
    "a configuration of another model": ("model.config.history_exponent", 0.5),
    "a size that is a word": ("model.config.dim", "x"),
    "no items": ("model.config.num_items", 0),
    "fewer items": ("model.config.num_items", ITEMS - 1),
    "other filters": ("model.config.horizontal_filters", 3),
    "an unknown activation": ("model.config.dense_activation", "x"),
    "an unknown policy": ("model.dtype_policy", "float7"),
    "other weights": ("model.fingerprint", "0" * 64),
    "another dataset": ("dataset.fingerprint", "0" * 64),
}


def changed(manifest, name, value):
    document = json.loads(json.dumps(manifest))
    *path, last = name.split(".")
    holder = document
    for part in path:
        holder = holder[part]
    holder[last] = value
    return document


@pytest.mark.parametrize("other", list(OTHER))
def test_every_command_refuses_a_run_with(root, manifest, other):
    document = changed(manifest, *OTHER[other])
    (root / "run" / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="is not as its run wrote it"):
        run_directory.load_run_manifest(root / "run")
    # As if it had been written so, by another version.
    del document[CHECKSUM]
    run_directory.write_run_manifest(root / "run", document)
    check_commands(root)


def test_a_silent_change_of_the_model_is_seen(root, manifest):
    document = changed(manifest, "model.config.dense_activation", "relu")
    (root / "run" / "manifest.json").write_text(json.dumps(document))
    check_commands(root)


@settings(max_examples=15)
@given(data=st.data())
def test_damaged_weights_are_refused_or_what_they_were(root, manifest, weights, data):
    (root / "run" / "manifest.json").write_text(json.dumps(manifest))
    # HDF5 keeps its index at the beginning.
    size = data.draw(st.sampled_from([4096, len(weights)]))
    (root / "run" / "model.weights.h5").write_bytes(data.draw(damaged(weights[:size])) + weights[size:])
    with refusing(root / "run"):
        assert weights_fingerprint(load_model(root / "run")) == manifest["model"]["fingerprint"]


@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "a directory", "no HDF5", "an index that is damaged"])
def test_every_command_refuses_weights_that_are(root, manifest, weights, damage):
    (root / "run" / "manifest.json").write_text(json.dumps(manifest))
    path = root / "run" / "model.weights.h5"
    path.unlink()
    if damage == "a directory":
        path.mkdir()
    elif damage != "gone":
        damaged_index = weights.replace(b"TREE", b"TREX").replace(b"HEAP", b"HEAQ")
        contents = {"empty": b"", "cut off": weights[:-9], "no HDF5": b"x" * 5000}
        path.write_bytes(contents.get(damage, damaged_index))
    check_commands(root)
    if damage == "a directory":
        path.rmdir()
    path.write_bytes(weights)


def test_the_whole_run_is_taken_by_every_command(root, manifest):
    (root / "run" / "manifest.json").write_text(json.dumps(manifest))
    for written, command in list(commands(root).items())[:2]:
        command()
        assert written.is_dir()
        remove(written)
