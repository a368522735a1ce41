"""The command that lists the best items for every user, from a run and from an export."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rd_tf.command_line import choose, default_flags
from rd_tf.data.windows import UserItems, last_sequences, open_dataset
from rd_tf.export import export
from rd_tf.models.ranker import Histories
from rd_tf.models.registry import load_model
from rd_tf.recommend import recommend
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.teacher.lists import read_teacher_lists
from rd_tf.teacher.scoring import best_items
from rd_tf.train import train


def run(**flags):
    return recommend(**default_flags(recommend) | flags)


def read(path):
    return pd.read_parquet(path) if str(path).endswith(".parquet") else pd.read_csv(path)


def expected(run_dir, dataset, k):
    """Rows of (user, rank, item, score), by `SequenceRanker.recommend`, a user at a time."""
    data, model = open_dataset(dataset), load_model(run_dir)
    interactions = data.interactions
    everything = np.ones(len(interactions), bool)
    sequences = last_sequences(interactions, everything, model.sequence_length)
    items = UserItems(interactions.users, interactions.items, interactions.num_users)
    untrained = np.flatnonzero(~data.split("test").is_candidate)[1:].astype(np.int32)
    rows = []
    for user in range(interactions.num_users):
        one = np.array([user], np.int32)
        hidden = np.concatenate([items.padded(one)[0], untrained])[None]
        history = Histories(*items.histories(one))
        best, scores = model.recommend(one, sequences[one], hidden, k, history=history)
        pairs = zip(np.asarray(best)[0], np.asarray(scores)[0], strict=True)
        rows += [
            (interactions.user_ids[user], rank, interactions.item_ids[item - 1], score)
            for rank, (item, score) in enumerate(pairs, 1)
        ]
    return pd.DataFrame(rows, columns=["user_id", "rank", "item_id", "score"])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("model", ["caser", "fossil"])
def test_every_user_gets_what_the_model_recommends(request, tiny_dataset, tmp_path, model, ending, capsys):
    run_dir = request.getfixturevalue({"caser": "tiny_teacher", "fossil": "tiny_fossil"}[model])
    path = run(run_dir=run_dir, dataset=tiny_dataset, k=7, output=str(tmp_path / f"lists.{ending}"), block_size=16)
    found, wanted = read(path), expected(run_dir, tiny_dataset, 7)
    assert found.columns.tolist() == wanted.columns.tolist()
    assert found[["user_id", "rank"]].equals(wanted[["user_id", "rank"]].astype(found["rank"].dtype, errors="ignore"))
    np.testing.assert_allclose(found.score, wanted.score, rtol=1e-4, atol=1e-5)
    assert (found.item_id == wanted.item_id).mean() > 0.99
    assert "420 rows, 60 users, 0 of them with fewer than 7 items" in capsys.readouterr().out


def test_an_export_recommends_what_its_run_does(tiny_teacher, tiny_dataset, tmp_path):
    flags = choose(export, default_flags(export), run_dir=tiny_teacher, dataset=tiny_dataset, export_dir=str(tmp_path))
    export(**flags)
    by_run = read(run(run_dir=tiny_teacher, dataset=tiny_dataset, k=5, output=str(tmp_path / "run.parquet")))
    place = str(tmp_path / "student")
    by_export = read(run(saved_model=place, dataset=tiny_dataset, k=5, output=str(tmp_path / "export.parquet")))
    assert by_export[["user_id", "rank"]].equals(by_run[["user_id", "rank"]])
    np.testing.assert_allclose(by_export.score, by_run.score, rtol=1e-4, atol=1e-5)
    assert (by_export.item_id == by_run.item_id).mean() > 0.99


def test_a_student_can_be_taught_from_its_output(tiny_teacher, tiny_dataset, tmp_path, train_flags):
    path = run(run_dir=tiny_teacher, dataset=tiny_dataset, k=5, output=str(tmp_path / "lists.csv"))
    flags = {"lists": path, "dataset": tiny_dataset, "cache": str(tmp_path / "cache"), "k": 5, "mask": "target"}
    cache = teach(**default_flags(teach) | flags | {"rank_column": "rank", "score_column": "score"})
    manifest = train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), teacher=cache, epochs=1))
    assert manifest["teacher"]["scores"] == "teacher"
    # The rows stand in the order of the lists.
    data = open_dataset(tiny_dataset).split("test")
    lists = read_teacher_lists(path, data, target_length=1)
    first = read(path)
    names = [data.interactions.item_ids[item - 1] for item in lists.items[0]]
    assert names == first.item_id[:5].tolist()


def test_some_users_in_the_order_of_a_file(tiny_teacher, tiny_dataset, tmp_path):
    (tmp_path / "users.txt").write_text("user-9\r\nuser-3\n\nuser-9\n")
    flags = {"run_dir": tiny_teacher, "dataset": tiny_dataset, "users": str(tmp_path / "users.txt"), "k": 2}
    found = read(run(**flags, output=str(tmp_path / "a.csv"), user_column="who", item_column="what"))
    assert found.columns.tolist() == ["who", "rank", "what", "score"]
    assert found.who.tolist() == ["user-9"] * 2 + ["user-3"] * 2
    everybody = read(run(**flags | {"users": ""}, output=str(tmp_path / "all.csv")))
    assert found.what.tolist()[:2] == everybody[everybody.user_id == "user-9"].item_id.tolist()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"run_dir": ""}, "give either --run_dir, a run directory, or --saved_model, an export"),
        ({"saved_model": "m"}, "give either --run_dir"),
        ({"output": ""}, r"--output= has to end in \.parquet or \.csv"),
        ({"output": "lists.json"}, r"--output=lists\.json has to end in \.parquet or \.csv"),
        ({"user_column": "rank"}, "--user_column=rank, --item_column=item_id, rank and score need a name of their own"),
        ({"dataset": ""}, "--dataset is empty"),
        ({"run_dir": "/nowhere"}, "--run_dir=/nowhere is not a directory"),
        ({"run_dir": "", "saved_model": "/nowhere"}, "--saved_model=/nowhere holds no SavedModel"),
        ({"users": "/nowhere"}, "--users=/nowhere is no file"),
        ({"users": "unknown.txt"}, r"--users: unknown\.txt, line 2: the user 'nobody' is not in the dataset; mend it"),
        ({"users": "blank.txt"}, r"--users=blank\.txt names no user"),
        ({"k": 300}, r"--k=300 is larger than the \d+ items that the model was trained on"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    tiny_teacher, tiny_dataset, tmp_path, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    Path("unknown.txt").write_text("user-1\nnobody\n")
    Path("blank.txt").write_text("\n")
    given = {"run_dir": tiny_teacher, "dataset": tiny_dataset, "output": "out.parquet"}
    with pytest.raises(InputError, match=message):
        run(**given | flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.txt", "unknown.txt"]


def test_a_file_that_is_there_is_replaced_by_force_only(tiny_teacher, tiny_dataset, tmp_path, monkeypatch):
    path = tmp_path / "lists.csv"
    path.write_text("mine")
    flags = {"run_dir": tiny_teacher, "dataset": tiny_dataset, "output": str(path), "k": 1, "block_size": 16}
    with pytest.raises(InputError, match=r"lists\.csv exists already; name another file or pass --force"):
        run(**flags)
    with monkeypatch.context() as patch:
        calls = []

        def power_cut(*arguments):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("power cut")
            return best_items(*arguments)

        patch.setattr("rd_tf.teacher.user_lists.best_items", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            run(**flags, force=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("lists.csv", "mine")]
    run(**flags, force=True)
    assert len(read(path)) == 60


def test_help_imports_no_tensorflow():
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    command = [sys.executable, "-m", "rd_tf.recommend", "--help"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0
    assert "--users  (default: empty)" in ended.stdout
    assert "tensorflow" not in ended.stderr
