"""python -m rd_tf.export, from a run directory and a dataset to a version directory."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from rd_tf import command_line
from rd_tf.data.dataset import save_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.export import export
from rd_tf.models.caser import Caser
from rd_tf.models.registry import save_model
from rd_tf.serving.savedmodel_check import run_saved_model
from rd_tf.storage import InputError, write_json

USERS, ITEMS = ["it's me", "é"], [f"place {i}" for i in range(6)]


def make_dataset(directory, first_item=1):
    items = np.array([first_item, 2, 3, 4, 5, 6], np.int32)
    users = np.array([0, 0, 0, 1, 1, 1], np.int32)
    return save_dataset(Interactions(users, items, np.arange(6, dtype=np.int64), USERS, ITEMS), directory, {})


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = tmp_path_factory.mktemp("export_command")
    dataset, other = make_dataset(root / "dataset"), make_dataset(root / "other", first_item=6)
    (root / "run").mkdir()
    described = save_model(Caser(2, 6, sequence_length=3, dim=4), root / "run")
    manifest = {"model": described, "dataset": {"fingerprint": dataset["fingerprint"]}, "split": "test"}
    write_json(root / "run" / "manifest.json", manifest)
    (root / "file").touch()
    return {
        "root": root,
        "fingerprints": (other["fingerprint"][:16], dataset["fingerprint"][:16]),
        "given": {
            "run_dir": str(root / "run"),
            "dataset": str(root / "dataset"),
            "export_dir": str(root / "saved models"),
            "export_name": "student",
            "export_format": "saved_model",
            "max_k": 4,
            "exclude_recent": True,
            "id_type": "string",
            "weights": "float32",
            "index": "exact",
            "clusters": 0,
            "probes": 16,
            "item_table": False,
            "names": False,
            "batching": False,
            "max_batch_size": 64,
            "batch_timeout_micros": 0,
            "num_batch_threads": 2,
            "keep_versions": 0,
            "min_metric_ratio": [],
            "gate_against": "",
            "server_config": True,
            "serving_image": "tensorflow/serving:2.20.0",
        },
    }


def test_the_command_exports_and_says_how_to_serve_and_ask(flags, capsys):
    version = export(**flags["given"])
    directory = flags["root"] / "saved models" / "student"
    assert version == str(directory / "1")
    where, serve, ask = capsys.readouterr().out.splitlines()
    assert version in where
    assert "bytes" in where
    assert shlex.split(serve) == [
        "python",
        "-m",
        "rd_tf.serve",
        "--model_name=student",
        f"--model_base_path={directory}",
    ]
    assert "student" in (directory.parent / "models.config").read_text()
    curl, option, body, url = shlex.split(ask)
    assert (curl, option, url) == ("curl", "-d", "http://localhost:8501/v1/models/student:predict")
    (instance,) = json.loads(body)["instances"]
    recent = ["place 3", "place 4", "place 5"]
    assert instance == {"user_id": "é", "recent_items": recent, "exclude_items": ["place 3", "place 4"], "k": 4}
    inputs = {name: np.array([value], None if name == "k" else object) for name, value in instance.items()}
    (answer,) = run_saved_model(version, [inputs])
    assert set(answer["items"][0]) == {"place 0", "place 1", "place 2", ""}
    report = json.loads((Path(version) / "assets.extra" / "report.json").read_text())
    # Nobody has a held-out item.
    assert report["quality"] is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id_type": "int64"}, '"it\'s me" among the ids of users is not an int64'),
        ({"names": True}, "--names: --dataset=.* has no names of items; give them with python -m rd_tf.prepare"),
        ({"index": "clusters", "clusters": 7}, "--clusters=7 is more than the 6 items"),
        ({"export_name": ""}, "--export_name= cannot be a served model's name"),
        ({"export_name": "a/b"}, "--export_name=a/b cannot be a served model's name"),
        ({"export_name": ".."}, r"--export_name=\.\. cannot be a served model's name"),
        ({"export_dir": ""}, "--export_dir is empty"),
        (
            {"export_dir": "{root}/a[b]"},
            r"--export_dir=.*/a\[b\] lies at .*/a\[b\], which holds \[ \]; TensorFlow takes",
        ),
        ({"export_dir": "{root}/what?/models"}, r"which holds \?; TensorFlow takes that for a pattern"),
        ({"export_dir": "{root}/file"}, "is a file, not a directory"),
        ({"run_dir": "{root}/dataset"}, r"of another kind \(no usable 'split'\)"),
        ({"run_dir": "{root}/nowhere"}, "is not a directory"),
        ({"dataset": "{root}/nowhere"}, "is not a directory"),
    ],
)
def test_bad_input_is_one_sentence(flags, changed, message):
    formatted = {name: v.format(root=flags["root"]) if isinstance(v, str) else v for name, v in changed.items()}
    with pytest.raises(InputError, match=message):
        export(**{**flags["given"], **formatted})


@pytest.fixture
def unchecked(monkeypatch):
    """Exports are not asked by the C++ loader."""
    monkeypatch.setattr("rd_tf.serving.export.check_agreement", lambda *_: {})


def test_the_names_of_the_dataset_are_exported(flags, tmp_path):
    dataset = tmp_path / "named"
    shutil.copytree(flags["given"]["dataset"], dataset)
    (dataset / "item_names.txt").write_text("".join(f"Film {place}\n" for place in range(6)))
    given = {**flags["given"], "export_dir": str(tmp_path), "dataset": str(dataset), "names": True}
    version = export(**given)
    asked = {"user_id": strings(["é"]), "recent_items": strings([["place 3"]]), "exclude_items": strings([[""]])}
    (answer,) = run_saved_model(version, [{**asked, "k": np.array([4], np.int32)}])
    assert [name.replace("Film", "place") for name in answer["names"][0]] == answer["items"][0].tolist()


def strings(value):
    return np.array(value, object)


@pytest.mark.usefixtures("unchecked")
def test_an_edited_file_of_the_server_is_left_alone_and_named(flags, tmp_path, capsys):
    given = {**flags["given"], "export_dir": str(tmp_path), "weights": "float16"}
    (tmp_path / "compose.yaml").write_text("mine\n")
    export(**given)
    said = capsys.readouterr().out
    assert f"left alone in {tmp_path}, since somebody edited them: compose.yaml" in said
    assert "warning" not in said
    assert (tmp_path / "compose.yaml").read_text() == "mine\n"


@pytest.mark.usefixtures("unchecked")
def test_an_edited_file_that_turns_batching_on_is_warned_of(flags, tmp_path, capsys):
    (tmp_path / "compose.yaml").write_text("mine\n      - --enable_batching=true\n")
    export(**{**flags["given"], "export_dir": str(tmp_path), "weights": "float16"})
    assert f"warning: {tmp_path / 'compose.yaml'} turns the server's batching on" in capsys.readouterr().out


def test_another_dataset_is_refused_with_both_fingerprints(flags):
    given, trained_on = flags["fingerprints"]
    with pytest.raises(InputError, match=rf"was trained on the dataset {trained_on}, but .* is {given}"):
        export(**{**flags["given"], "dataset": str(flags["root"] / "other")})


def test_every_parameter_is_a_flag():
    defaults = command_line.default_flags(export)
    assert (defaults["export_dir"], defaults["export_name"], defaults["max_k"]) == ("saved_models", "student", 100)
