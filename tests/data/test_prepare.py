"""The command: from files to a dataset directory, and what it says on the way."""

import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.command_line import default_flags
from rd_tf.data.dataset import load_dataset, load_manifest
from rd_tf.prepare import prepare
from rd_tf.storage import InputError

CHECK_INS = """user_id,item_id,timestamp
bob,park,5
ann,cafe,9
bob,cafe,3
ann,cafe,2
ann,park,4
eve,zoo,1
"""


def run(**flags):
    return prepare(**default_flags(prepare) | flags)


@pytest.fixture
def check_ins(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text(CHECK_INS)
    return str(path)


@pytest.fixture
def dataset(tmp_path):
    return str(tmp_path / "out")


def test_writes_a_dataset_numbered_by_appearance_and_sorted_by_time(check_ins, dataset):
    run(input=[check_ins], dataset=dataset)
    interactions = load_dataset(dataset)
    assert interactions.user_ids == ["bob", "ann", "eve"]
    assert interactions.item_ids == ["park", "cafe", "zoo"]
    assert interactions.users.tolist() == [0, 0, 1, 1, 2]
    assert interactions.items.tolist() == [2, 1, 1, 2, 3]
    assert interactions.timestamps.tolist() == [3, 5, 4, 9, 1]


def test_manifest_tells_the_origin(check_ins, dataset):
    manifest = run(input=[check_ins], dataset=dataset, min_user_items=2, duplicates="keep_first")
    assert manifest == load_manifest(dataset)
    assert manifest["source"] == {
        "input": [check_ins],
        "input_sha256": [hashlib.sha256(Path(check_ins).read_bytes()).hexdigest()],
        "format": "auto",
        "user_column": "user_id",
        "item_column": "item_id",
        "time_column": "timestamp",
        "time_unit": "integers as given",
        "duplicates": "keep_first",
        "min_user_items": 2,
        "min_item_users": 1,
        "skip_bad_rows": False,
        "rows_read": 6,
        "skipped_rows": {"count": 0, "reasons": {}},
        "duplicates_dropped": 1,
        "k_core_rounds": 1,
        "k_core_rows_dropped": 1,
    }
    assert (manifest["users"], manifest["items"], manifest["interactions"]) == (2, 2, 4)


def test_prints_a_summary(check_ins, dataset, capsys):
    manifest = run(input=[check_ins], dataset=dataset)
    text = capsys.readouterr().out
    for words in (
        "rows read           6",
        "duplicates dropped  1 (keep_last)",
        "users               3",
        "interactions        5",
    ):
        assert words in text
    assert manifest["fingerprint"][:16] in text
    assert dataset in text


def test_bad_row_leaves_nothing_behind(tmp_path, dataset):
    (tmp_path / "bad.csv").write_text(CHECK_INS + "bob,zoo,soon\n")
    with pytest.raises(InputError, match=r"bad\.csv, line 8: the time 'soon' .*; mend it or pass --skip_bad_rows"):
        run(input=[str(tmp_path / "bad.csv")], dataset=dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_skipped_rows_are_reported(tmp_path, dataset, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(CHECK_INS + "bob,zoo,soon\n,zoo,7\n")
    manifest = run(input=[str(path)], dataset=dataset, skip_bad_rows=True)
    assert manifest["source"]["rows_read"] == 8
    skipped = manifest["source"]["skipped_rows"]
    assert (skipped["count"], skipped["reasons"]) == (2, {"user id empty": 1, "unreadable time": 1})
    assert skipped["first"].startswith(f"{path}, line 8: the time 'soon'")
    assert "bad rows skipped    2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": ""}, "--dataset is empty"),
        ({"input": []}, "--input is empty"),
        ({"format": "synthetic"}, "--format=synthetic reads no files; leave out --input="),
        ({"item_column": "user_id"}, "--user_column=user_id, --item_column=user_id, .* need a column each"),
        ({"time_column": "when"}, r"line 1: the header has no column 'when', which --time_column names"),
        ({"min_user_items": 9}, "nothing remains: --min_user_items=9 and --min_item_users=1 drop all 5 rows"),
    ],
)
def test_settings_that_cannot_be_used(check_ins, dataset, flags, message):
    with pytest.raises(InputError, match=message):
        run(**{"input": [check_ins], "dataset": dataset} | flags)
    assert not Path(dataset).exists()


def test_no_usable_row(tmp_path, dataset):
    (tmp_path / "in.csv").write_text("user_id,item_id,timestamp\na,p,soon\n")
    with pytest.raises(InputError, match=r"no row can be used \(1 read, 1 of them bad\)"):
        run(input=[str(tmp_path / "in.csv")], dataset=dataset, skip_bad_rows=True)


def test_a_dataset_of_the_same_flags_and_input_is_kept(check_ins, dataset, capsys):
    made = run(input=[check_ins], dataset=dataset, skip_bad_rows=True)
    before = [path.stat().st_ino for path in sorted(Path(dataset).iterdir())]
    capsys.readouterr()
    # The input is a file, so no flag of the built-in world had a part in it.
    assert run(input=[check_ins], dataset=dataset, skip_bad_rows=True, seed=5, synthetic_users=77) == made
    assert capsys.readouterr().out == f"dataset kept: {dataset}\n"
    assert [path.stat().st_ino for path in sorted(Path(dataset).iterdir())] == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"min_user_items": 2}, "--min_user_items=1, not 2"),
        ({"duplicates": "keep_all"}, "--duplicates=keep_last, not keep_all"),
        ({"format": "csv"}, "--format=auto, not csv"),
        ({"input": [], "format": "synthetic"}, r"--input=\S*in.csv, not ;"),
    ],
)
def test_another_dataset_is_refused_by_the_flag_that_differs(changed, named, check_ins, dataset):
    run(input=[check_ins], dataset=dataset)
    with pytest.raises(InputError, match=f"was made with {named}.* name another directory, or --force makes it again"):
        run(**{"input": [check_ins], "dataset": dataset} | changed)


def test_a_dataset_of_the_same_file_under_another_name_is_kept(check_ins, dataset, monkeypatch, capsys):
    monkeypatch.chdir(Path(check_ins).parent)
    name = Path(check_ins).name
    run(input=[name], dataset=dataset)
    for other in (f"./{name}", str(check_ins), f"{Path(check_ins).parent}/../{Path(check_ins).parent.name}/{name}"):
        run(input=[other], dataset=dataset)
        assert "dataset kept" in capsys.readouterr().out


def test_a_dataset_of_other_input_is_replaced_by_force_only(check_ins, dataset):
    run(input=[check_ins], dataset=dataset)
    Path(check_ins).write_text(CHECK_INS + "eve,park,2\n")
    with pytest.raises(InputError, match="held something else; name another directory, or --force makes it again"):
        run(input=[check_ins], dataset=dataset)
    assert run(input=[check_ins], dataset=dataset, min_user_items=2, force=True)["users"] == 3


def test_a_directory_without_a_dataset_is_refused(check_ins, tmp_path):
    with pytest.raises(InputError, match="exists already; name another directory or pass --force"):
        run(input=[check_ins], dataset=str(tmp_path))


def test_force_spares_what_is_no_dataset(check_ins, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    for target in (home, home / "letter.txt"):
        with pytest.raises(InputError, match="is not a dataset, so --force does not replace it"):
            run(input=[check_ins], dataset=str(target), force=True)
    with pytest.raises(InputError, match=r"letter\.txt is a file, not a directory"):
        run(input=[check_ins], dataset=str(home / "letter.txt" / "out"))
    assert (home / "letter.txt").read_text() == "dear"


def test_force_spares_the_input(check_ins, dataset):
    run(input=[check_ins], dataset=dataset)
    inside = Path(dataset) / "in.csv"
    inside.write_text(CHECK_INS)
    with pytest.raises(InputError, match="lies in the directory that --force would replace"):
        run(input=[str(inside)], dataset=dataset, force=True)
    assert inside.exists()


def test_sharded_it_is_the_same_dataset(check_ins, tmp_path):
    whole = run(input=[check_ins], dataset=str(tmp_path / "whole"))
    sharded = run(input=[check_ins], dataset=str(tmp_path / "sharded"), shards=2)
    assert [(entry["users"], entry["rows"]) for entry in sharded.pop("shards")] == [(1, 2), (2, 3)]
    assert sharded == whole
    assert load_dataset(tmp_path / "sharded").fingerprint() == whole["fingerprint"]
    again = run(input=[check_ins], dataset=str(tmp_path / "sharded"), force=True)
    assert again == whole


def test_synthetic_world_needs_no_file_and_repeats(tmp_path):
    flags = {"format": "synthetic", "synthetic_users": 30, "synthetic_items": 60, "synthetic_visits": 12.0, "seed": 3}
    one = run(dataset=str(tmp_path / "one"), **flags)
    assert one["users"] == 30
    assert one["source"]["seed"] == 3
    assert run(dataset=str(tmp_path / "two"), **flags)["fingerprint"] == one["fingerprint"]
    assert run(dataset=str(tmp_path / "three"), **flags | {"seed": 4})["fingerprint"] != one["fingerprint"]


IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(IDS, IDS, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=12))
def test_any_ids_come_back(rows):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "in.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([("user_id", "item_id", "timestamp"), *rows])
        run(input=[str(path)], dataset=f"{directory}/out", duplicates="keep_all")
        interactions = load_dataset(f"{directory}/out")
    users = [interactions.user_ids[user] for user in interactions.users]
    items = [interactions.item_ids[item - 1] for item in interactions.items]
    order = list(dict.fromkeys(user for user, _, _ in rows))
    assert interactions.user_ids == order
    expected = sorted(rows, key=lambda row: (order.index(row[0]), row[2]))
    assert list(zip(users, items, interactions.timestamps.tolist(), strict=True)) == expected


def test_from_the_command_line_one_sentence_and_exit_code_1(tmp_path, check_ins):
    command = [sys.executable, "-m", "rd_tf.prepare", f"--input={check_ins}", f"--dataset={tmp_path / 'out'}"]
    root = Path(__file__).parents[2]
    good = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["interactions"] == 5
    again = subprocess.run([*command, "--seed=7", "--skip_bad_rows"], capture_output=True, text=True, cwd=root)
    assert again.returncode == 1
    assert again.stderr == (
        f"error: --dataset={tmp_path / 'out'} was made with --skip_bad_rows=False, not True; name another directory, "
        "or --force makes it again\n"
    )


def test_tensorflow_is_not_imported(tmp_path, check_ins):
    flags = {"input": [check_ins], "dataset": str(tmp_path / "out")}
    code = (
        "import sys; from rd_tf.command_line import default_flags; from rd_tf.prepare import prepare;"
        f"prepare(**default_flags(prepare) | {flags!r});"
        "sys.exit('tensorflow' in sys.modules or 'tensorflow_datasets' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL
        ).returncode
        == 0
    )
