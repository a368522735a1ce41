"""python -m rd_tf.show: history and lists side by side."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rd_tf import command_line
from rd_tf.command_line import choose, default_flags
from rd_tf.data.dataset import load_dataset
from rd_tf.data.windows import open_dataset
from rd_tf.models.registry import load_model
from rd_tf.show import find_models, show
from rd_tf.storage import InputError
from rd_tf.teach import teach


def run(**flags):
    return show(**default_flags(show) | flags)


@pytest.fixture
def pipeline(tmp_path, tiny_teacher, tiny_student, tiny_fossil):
    """What pipelines.distill leaves; the student alone is played by another run."""
    for seed in (0, 1, 10):
        (tmp_path / "runs" / f"seed-{seed}").mkdir(parents=True)
    for role, place in {"teacher": tiny_teacher, "student": tiny_fossil, "distilled": tiny_student}.items():
        (tmp_path / "runs" / "seed-0" / role).symlink_to(place)
    return tmp_path / "runs"


@pytest.fixture
def named(tmp_path, tiny_dataset):
    """The dataset with a name for every other item."""
    directory = tmp_path / "named"
    shutil.copytree(tiny_dataset, directory)
    items = load_dataset(directory).item_ids
    names = [f"[Place] of {item}" if place % 2 else "" for place, item in enumerate(items)]
    (directory / "item_names.txt").write_text("".join(f"{name}\n" for name in names))
    return str(directory)


def best(run_dir, dataset, user, k):
    """The k best unseen candidates by all scores, ids."""
    data, model = open_dataset(dataset).split("test"), load_model(run_dir)
    one = np.array([user], np.int32)
    history = data.histories(model, one)
    query = model.encode(one, data.seen.last(one, model.sequence_length), history=history)
    scores = np.array(model.score_all(query))[0]
    scores[~data.is_candidate] = -np.inf
    scores[data.items[data.users == user]] = -np.inf
    return [data.interactions.item_ids[item - 1] for item in np.argsort(-scores, kind="stable")[:k]]


def test_three_lists_stand_beside_each_other(pipeline, named, tiny_teacher, tiny_student, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    data = open_dataset(named).split("test")
    users, held = data.interactions.users, data.split.held_out
    user = int(np.bincount(users[held]).argmax())
    raw_id = data.interactions.user_ids[user]
    lists = run(run_dir=str(pipeline), user=raw_id, dataset=named, k=8)
    assert list(lists) == ["teacher", "student alone", "distilled"]
    assert lists["teacher"] == best(tiny_teacher, named, user, 8)
    assert lists["distilled"] == best(tiny_student, named, user, 8)
    assert all(len(items) == 8 for items in lists.values())
    shown = capsys.readouterr().out
    names = dict(
        zip(data.interactions.item_ids, (Path(named) / "item_names.txt").read_text().splitlines(), strict=True)
    )
    later = {data.interactions.item_ids[item - 1] for item in data.interactions.items[held & (users == user)]}
    (head,) = [line for line in shown.splitlines() if "teacher" in line]
    assert [head.index(name) for name in lists] == sorted(head.index(name) for name in lists)
    for rank in range(8):
        row = next(
            line
            for line in shown.splitlines()
            if line.split()[:1] == [str(rank + 1)] and head.index("alone") < len(line.rstrip())
        )
        for items in lists.values():
            item = items[rank]
            assert ("* " if item in later else "") + (names[item] or item) in row
    known = data.items[data.users == user]
    assert f"user {raw_id}: the last 10 of {len(known)} training items, newest first" in shown
    newest = data.interactions.item_ids[known[-1] - 1]
    assert (names[newest] or newest) in shown.split("listed next")[0]
    hits = [f"{len(later & {*items})} of {len(later)} visited" for items in lists.values()]
    assert all(hit in shown for hit in hits)


def test_a_run_is_shown_beside_its_teacher_and_without_names_by_raw_ids(
    tiny_student, tiny_teacher, tiny_dataset, capsys
):
    data = open_dataset(tiny_dataset)
    lists = run(run_dir=tiny_student, user=data.interactions.user_ids[3])
    assert list(lists) == ["teacher", "distilled"]
    assert lists["distilled"] == best(tiny_student, tiny_dataset, 3, 10)
    assert lists["distilled"][0] in capsys.readouterr().out
    assert list(run(run_dir=tiny_teacher, user=data.interactions.user_ids[3])) == ["student alone"]


def test_of_a_teacher_cache_the_list_of_the_last_window_is_shown(tmp_path, pipeline, tiny_teacher, tiny_dataset):
    (pipeline / "seed-0" / "teacher").unlink()
    made = teach(
        **choose(
            teach,
            default_flags(teach),
            teacher=tiny_teacher,
            dataset=tiny_dataset,
            k=6,
            cache=str(pipeline / "seed-0" / "teacher"),
        )
    )
    data = open_dataset(tiny_dataset).split("test")
    rows = np.flatnonzero(data.windows(5, 1).users == 3)
    wanted = [data.interactions.item_ids[item - 1] for item in np.load(Path(made) / "items.npy")[rows[-1]]]
    assert run(run_dir=str(pipeline / "seed-0"), user=data.interactions.user_ids[3])["teacher"] == wanted


def test_the_first_seed_with_models_is_found(pipeline, tiny_teacher):
    found = find_models(str(pipeline))
    assert found == {role: str(pipeline / "seed-0" / role) for role in ("teacher", "student", "distilled")}
    # A teacher that was given to the pipeline lies elsewhere.
    (pipeline / "seed-0" / "teacher").unlink()
    assert find_models(str(pipeline))["teacher"] == tiny_teacher


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user": ""}, "--user is empty; name a user by the raw id"),
        ({"user": "nobody"}, "--user=nobody is not in .*; its users are such as "),
        ({"run_dir": ""}, "--run_dir is empty; name a run directory"),
        ({"run_dir": "/nowhere"}, "--run_dir=/nowhere is not a directory; train a model there"),
        ({"run_dir": "{tmp}"}, "holds no finished run, nor student and distilled or seed-0"),
        ({"k": 5000}, "--k=5000 is larger than the "),
        ({"dataset": "/nowhere"}, "--dataset=/nowhere is not a directory"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(tiny_student, tmp_path, changed, message):
    changed = {name: str(tmp_path) if value == "{tmp}" else value for name, value in changed.items()}
    with pytest.raises(InputError, match=message):
        run(**{"run_dir": tiny_student, "user": "user-0"} | changed)


def test_a_run_whose_dataset_is_gone_says_which_flag_names_it(tmp_path, tiny_student):
    copy = tmp_path / "run"
    shutil.copytree(tiny_student, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["dataset"]["path"] = "/gone"
    del manifest["manifest_sha256"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="--dataset=/gone is not a directory"):
        run(run_dir=str(copy), user="0")


def test_it_is_a_command_whose_lists_are_ten_long():
    assert command_line.COMMANDS["show"] == "rd_tf.show"
    assert default_flags(show)["k"] == 10
