"""A two-tower teacher of TensorFlow Recommenders: what it is refused for, what it lists, and a student of its lists."""

import importlib.util
import os
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipelines import tfrs_teacher as command
from pipelines.tfrs_teacher import tfrs_teacher
from rd_tf.command_line import default_flags
from rd_tf.data.windows import open_dataset
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.train import train

K = 10
NEEDED = ("tensorflow_recommenders", "tf_keras")
needs_tfrs = pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in NEEDED),
    reason="TensorFlow Recommenders or tf-keras is not installed (requirements-tfrs.txt)",
)


def run(**flags):
    small = {"k": K, "dim": 8, "epochs": 2, "batch_size": 64, "learning_rate": 0.01, "split": "validation"}
    return tfrs_teacher(**default_flags(tfrs_teacher) | small | flags)


@pytest.fixture(scope="module")
def lists(tmp_path_factory, tiny_dataset):
    """A file of lists."""
    return run(dataset=tiny_dataset, output=str(tmp_path_factory.mktemp("tfrs") / "lists.parquet"))


@pytest.fixture
def is_installed(monkeypatch):
    """Makes the packages seem to be there; returns a way to make one seem missing."""
    missing = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else object())
    return missing


@pytest.mark.parametrize(
    ("module", "name"), zip(NEEDED, ("TensorFlow Recommenders", r"Keras 2 \(tf-keras\)"), strict=True)
)
def test_a_missing_package_is_one_sentence_that_names_the_extra(is_installed, module, name):
    is_installed.add(module)
    with pytest.raises(
        InputError, match=rf"^{name} is not installed; pip install -r requirements-tfrs\.txt \(the extra"
    ):
        run()


def test_what_cannot_be_used_is_refused_before_a_process_is_started(is_installed, tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_train", lambda *_: pytest.fail("a process was started"))
    there = tmp_path / "there.csv"
    there.write_text("mine\n")
    good = {"dataset": tiny_dataset, "output": str(tmp_path / "new.csv")}
    for flags, message in (
        ({"dataset": ""}, "--dataset is empty"),
        ({"dataset": "/nowhere"}, "--dataset=/nowhere is not a directory"),
        ({"output": "lists.txt"}, r"--output=lists.txt has to end in \.parquet or \.csv"),
        ({"output": str(there)}, "exists already; name another file or pass --force"),
        ({"k": 500}, r"--k=500 is larger than the \d+ items with a training row"),
    ):
        with pytest.raises(InputError, match=message):
            run(**good | flags)
    assert there.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", InputError, "signal 9 has ended the training of the towers"),
        ("raise KeyError('a bug')", RuntimeError, "a bug"),
    ],
)
def test_a_training_that_ends_badly_leaves_no_file(
    is_installed, tiny_dataset, tmp_path, monkeypatch, program, error, message
):
    start = command.subprocess.Popen
    monkeypatch.setattr(
        command.subprocess, "Popen", lambda _, **options: start([sys.executable, "-c", program], **options)
    )
    with pytest.raises(error, match=message):
        run(dataset=tiny_dataset, output=str(tmp_path / "lists.csv"))
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(is_installed, tiny_dataset, tmp_path, monkeypatch):
    def diverged(settings, _):
        np.savez(settings["vectors"], users=np.full((60, 2), np.nan, "f"), items=np.zeros((99, 2), "f"))

    monkeypatch.setattr(command, "_train", diverged)
    with pytest.raises(InputError, match="not finite; train them with a smaller --learning_rate"):
        run(dataset=tiny_dataset, output=str(tmp_path / "lists.csv"))
    assert not list(tmp_path.iterdir())


def test_lists_hold_the_best_items_that_a_user_has_not_seen(is_installed, tiny_dataset, tmp_path, monkeypatch, capsys):
    data = open_dataset(tiny_dataset).split("validation")
    # Vectors of small whole numbers give equal scores now and then.
    generator = np.random.default_rng(0)
    users = generator.integers(-2, 3, (data.num_users, 3)).astype("float32")
    items = generator.integers(-2, 3, (data.num_items + 1, 3)).astype("float32")
    monkeypatch.setattr(command, "_train", lambda settings, _: np.savez(settings["vectors"], users=users, items=items))
    found = pd.read_csv(
        run(dataset=tiny_dataset, output=str(tmp_path / "lists.csv")), dtype={"user_id": str, "item_id": str}
    )
    assert found.columns.tolist() == ["user_id", "rank", "item_id", "score"]
    names, wanted = data.interactions, []
    for user in range(data.num_users):
        own = set(data.items[data.users == user].tolist())
        free = [item for item in sorted(set(data.items.tolist())) if item not in own]
        for rank, item in enumerate(sorted(free, key=lambda item: -users[user] @ items[item])[:K], 1):
            wanted.append((names.user_ids[user], rank, names.item_ids[item - 1], users[user] @ items[item]))
    wanted = pd.DataFrame(wanted, columns=found.columns)
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False)
    assert "validation: map 0." in capsys.readouterr().out


@needs_tfrs
def test_a_student_is_distilled_from_its_lists(lists, tiny_dataset, tmp_path, train_flags):
    flags = {"lists": lists, "score_column": "score", "split": "validation", "dataset": tiny_dataset, "k": K}
    cache = teach(**default_flags(teach) | flags | {"mask": "seen", "cache": str(tmp_path / "cache")})
    student = train_flags(
        dataset=tiny_dataset,
        run_dir=str(tmp_path / "student"),
        teacher=cache,
        split="validation",
        epochs=1,
        k=K,
        mask="seen",
        ranking_loss="sampled_softmax",
        distillation_loss="listwise",
        shared_negatives=20,
    )
    manifest = train(**student)
    counts = manifest["teacher"]["lists"]["counts"]
    # Nobody is unknown, nothing is masked, and no list is short.
    assert counts.pop("rows") == 60 * K
    assert set(counts.values()) == {0}
    assert manifest["teacher"]["scores"] == "teacher"
    # The other process' Keras is not ours.
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert tf.keras.__version__.startswith("3.")
    assert (tmp_path / "student" / "metrics.json").is_file()


@needs_tfrs
def test_the_same_seed_gives_the_same_lists_and_training_makes_them_better(lists, tiny_dataset, tmp_path, capfd):
    again = run(dataset=tiny_dataset, output=str(tmp_path / "again.parquet"))
    said = capfd.readouterr()
    assert pd.read_parquet(again).equals(pd.read_parquet(lists))
    losses = [float(line.split()[5].rstrip(",")) for line in said.out.splitlines() if line.startswith("epoch ")]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert said.err == ""
