"""Lists in files of raw ids, against a slow oracle; whatever is wrong with a file is one sentence."""

import csv
import gzip
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_tf.command_line import default_flags
from rd_tf.data.interactions import Interactions
from rd_tf.data.teacher_lists import load_teacher_cache
from rd_tf.data.windows import Dataset, open_dataset
from rd_tf.prepare import prepare
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.teacher.lists import read_teacher_lists, write_windows
from rd_tf.train import train

L, T = 2, 1
# Items a .. h are 1 .. 8 and have 4, 3, 3, 2, 1, 0, 1, 1 training rows; f is in nobody's.
HISTORIES = {"ann": "abcad", "bob": "bac", "eve": "abcdeg", "dan": "h"}
USERS, ITEMS = list(HISTORIES), list("abcdefgh")


def small_data():
    users = np.repeat(np.arange(4), [len(history) for history in HISTORIES.values()]).astype(np.int32)
    items = np.array([ITEMS.index(item) + 1 for history in HISTORIES.values() for item in history], np.int32)
    return Dataset(Interactions(users, items, np.arange(len(items)), USERS, ITEMS)).split("all")


def write(path, rows, names=("user_id", "item_id")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def user_rows(lists):
    return [(user, item) for user, items in lists.items() for item in items]


def read(path, data, k=None, **changed):
    return read_teacher_lists(path, data, k, **{"sequence_length": L, "target_length": T, **changed})


def names(items):
    return ["".join(ITEMS[item - 1] for item in row) for row in items]


WHOLE = dict.fromkeys(USERS, "hgedcba")


def test_a_list_of_a_user_serves_all_windows_less_their_targets(tmp_path):
    lists = read(write(tmp_path / "lists.csv", user_rows(WHOLE)), small_data(), 3)
    # The windows of ann end in c, a, d; bob's in c; eve's in c, d, e, g; dan's in h.
    assert names(lists.items) == ["hge", "hge", "hge", "hge", "hge", "hge", "hgd", "hed", "ged"]
    assert names(read(tmp_path / "lists.csv", small_data(), 3, mask="none").items) == ["hge"] * 9
    assert (lists.items.dtype, lists.scores.dtype, lists.has_scores) == (np.int32, np.float16, False)
    np.testing.assert_array_equal(lists.scores, [[-1, -2, -3]] * 9)
    assert (lists.manifest["scores"], lists.key.sequence_length, lists.key.target_length) == ("ranks", L, T)


def test_what_a_user_has_seen_may_be_kept_out(tmp_path):
    lists = read(write(tmp_path / "lists.csv", user_rows(WHOLE)), small_data(), mask="seen")
    # eve has seen all but h, and f is in no list: K is 1.
    assert names(lists.items) == ["h", "h", "h", "h", "h", "h", "h", "h", "g"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
@pytest.mark.parametrize("order", ["rank_column", "score_column", "both"])
def test_rank_or_score_order_a_list_in_every_kind_of_file(tmp_path, ending, order):
    frame = pd.DataFrame([(user, item) for user in USERS for item in "hge"], columns=["user_id", "item_id"])
    frame["rank"], frame["score"] = [1, 2, 3] * 4, [2.5, -1.0, -1e9] * 4
    frame = frame.sample(frac=1, random_state=0)
    path = tmp_path / f"lists.{ending}"
    if ending == "parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    columns = {"rank_column": "rank", "score_column": "score"}
    chosen = columns if order == "both" else {order: columns[order]}
    lists = read(path, small_data(), mask="none", **chosen)
    assert names(lists.items) == ["hge"] * 9
    assert lists.has_scores == (order != "rank_column")
    # Half precision has no -1e9.
    np.testing.assert_array_equal(lists.scores[0], [2.5, -1, -65504] if lists.has_scores else [-1, -2, -3])


def test_lists_of_windows(tmp_path):
    data = small_data()
    windows = data.windows(L, T)
    rows = [(USERS[u], p, ITEMS[n % 5]) for u, p in zip(windows.users, windows.positions, strict=True) for n in (p, 0)]
    lists = read(
        write(tmp_path / "lists.csv", rows, ("who", "position", "what")),
        data,
        mask="none",
        user_column="who",
        item_column="what",
        position_column="position",
        incomplete="pad",
    )
    # The positions are ann's 2, 3, 4, bob's 2, eve's 2 .. 5 and dan's 0, whose item stands twice.
    assert names(lists.items) == ["c", "d", "e", "c", "c", "d", "e", "a", "a"]


def test_the_file_of_windows_names_all_of_them(tmp_path):
    assert write_windows(tmp_path / "windows.parquet", small_data(), L, T) == 9
    frame = pd.read_parquet(tmp_path / "windows.parquet")
    assert frame.columns.tolist() == ["user_id", "position", "sequence", "targets"]
    assert frame.user_id.tolist() == ["ann"] * 3 + ["bob"] + ["eve"] * 4 + ["dan"]
    assert frame.position.tolist() == [2, 3, 4, 2, 2, 3, 4, 5, 0]
    assert ["".join(items) for items in frame.sequence] == ["ab", "bc", "ca", "ba", "ab", "bc", "cd", "de", ""]
    assert ["".join(items) for items in frame.targets] == ["c", "a", "d", "c", "c", "d", "e", "g", "h"]


def test_padding_is_popular_and_neither_listed_nor_masked(tmp_path):
    path = write(
        tmp_path / "lists.csv", [("ann", "d", 3), ("bob", "b", 2), ("bob", "c", 1)], ("user_id", "item_id", "s")
    )
    lists = read(path, small_data(), 3, score_column="s", incomplete="pad")
    assert names(lists.items) == ["dab", "dbc", "abc", "bad", "abd", "abc", "abc", "abc", "abc"]
    assert lists.scores.tolist() == [[3] * 3, [3] * 3, [0] * 3, [2] * 3] + [[0] * 3] * 5
    assert lists.manifest["lists"]["counts"] == {
        "rows": 3,
        "unknown users": 0,
        "unknown items": 0,
        "rows of items without a training row": 0,
        "repeated rows": 0,
        "users without a list": 2,
        "items kept out by the mask": 2,
        "windows without a list": 6,
        "windows with too few items": 3,
    }


def slow_lists(data, lists, k, mask):
    popularity = np.bincount(data.items, minlength=data.num_items + 1)
    popular = [item for item in np.argsort(-popularity, kind="stable") if popularity[item] and item]
    windows = data.windows(L, T)
    for user, targets in zip(windows.users, windows.targets, strict=True):
        hidden = {"target": set(targets), "seen": set(data.items[data.users == user]), "none": set()}[mask]
        listed = dict.fromkeys(lists.get(USERS[user], []))
        numbers = [ITEMS.index(item) + 1 for item in listed if item != "f"]
        free = [item for item in numbers if item not in hidden]
        yield (free + [item for item in popular if item not in hidden and item not in free])[:k]


@given(
    lists=st.dictionaries(st.sampled_from(USERS), st.text("abcdefgh", max_size=9)),
    mask=st.sampled_from(["target", "none", "seen"]),
    k=st.integers(1, 5),
)
def test_padded_lists_equal_a_slow_oracle(tmp_path_factory, lists, mask, k):
    path, data = tmp_path_factory.mktemp("lists") / "lists.csv", small_data()
    # One user has seen all items but one.
    k = 1 if mask == "seen" else k
    write(path, [("ann", "a"), *user_rows({**lists, "ann": lists.get("ann", "")})])
    lists["ann"] = "a" + lists.get("ann", "")
    made = read(path, data, k, mask=mask, incomplete="pad")
    np.testing.assert_array_equal(made.items, list(slow_lists(data, lists, k, mask)))


def test_unknown_users_items_and_positions_are_refused_or_counted(tmp_path):
    data, columns = small_data(), ("user_id", "item_id", "position")
    good = [(user, item, 2) for user in ("ann", "bob", "eve") for item in "hg"]
    for bad, message in (
        (("zoe", "h", 2), r"line 3: the user b?'zoe' is not in the dataset \(in the file 1 unknown users\)"),
        (("ann", "z", 2), r"line 3: the item b?'z' is not in the dataset \(in the file 1 unknown items\)"),
        (
            ("dan", "h", 2),
            r"line 3: the user has no window at position 2 in the split 'all' with L=2 and T=1 .*1 rows of",
        ),
    ):
        path = write(tmp_path / "lists.csv", [good[0], bad, *good[1:]], columns)
        with pytest.raises(InputError, match=rf"lists\.csv, {message}.* leave such rows out by --unknown=skip"):
            read(path, data, 2, position_column="position")
        lists = read(path, data, 2, position_column="position", unknown="skip", incomplete="pad")
        assert names(lists.items) == ["hg", "bc", "ab", "hg", "hg", "ab", "ab", "ab", "ab"]
        counts = lists.manifest["lists"]["counts"]
        assert counts["unknown users"] + counts["unknown items"] + counts["rows of no window"] == 1


@pytest.mark.parametrize(
    ("text", "changed", "message"),
    [
        ("user_id,item_id\nann,h\n,h\n", {}, r"lists\.csv, line 3: the user id b?'' is empty; mend it"),
        ("user_id,item_id\nann,h\nann,h,h\n", {}, r"lists\.csv, line 3: 3 fields instead of 2"),
        ("user_id,item\nann,h\n", {}, "line 1: the header has no column 'item_id', which --item_column names"),
        (
            "user_id,item_id,r\nann,h,first\n",
            {"rank_column": "r"},
            r"line 2: the rank b?'first' is not a finite number",
        ),
        ("user_id,item_id,r\nann,h,\n", {"score_column": "r"}, r"line 2: the score b?'' is not a finite number"),
        ("user_id,item_id,r\nann,h,1e999\n", {"score_column": "r"}, "line 2: the score .* is not a finite number"),
        ("user_id,item_id,r\nann,h,1.5\n", {"position_column": "r"}, "line 2: the position .* is not a whole number"),
        (
            "user_id,item_id,r,s\nann,h,1,2\nann,g,2,3\n",
            {"rank_column": "r", "score_column": "s"},
            "line 3: the score is higher than that of the rank before",
        ),
        ("user_id,item_id\n", {}, "no row names a user and an item of the dataset"),
        ("user_id,item_id\nzoe,z\n", {"unknown": "skip"}, "no row names a user and an item of the dataset"),
        ("user_id,item_id\nann,h\n", {"item_column": "user_id"}, "every one of these needs a column of its own"),
        (
            "user_id,item_id\nann,h\nann,c\nbob,h\nbob,g\n",
            {},
            r"lists\.csv: of 9 windows 5 have no list and 1 fewer than --k=2 items \(--mask=target keeps 1 out\), "
            "first that of user 'ann' at position 2 with 1; give longer lists or a smaller --k, or pass --incomplete",
        ),
        ("user_id,item_id\nann,h\n", {"k": 8, "incomplete": "pad"}, "--k=8 is larger than the catalogue of 7 items"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, text, changed, message):
    (tmp_path / "lists.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "lists.csv", small_data(), **{"k": 2, **changed})


def test_a_file_that_is_not_there_or_of_no_known_kind_is_refused(tmp_path):
    (tmp_path / "lists.json").write_text("{}")
    (tmp_path / "lists.parquet").write_text("user_id,item_id\n")
    for name, message in (
        ("none.csv", "--lists=.*none.csv does not exist; name"),
        ("", "is a directory, not a file; name"),
        ("lists.json", r"--lists=.*lists.json ends neither in \.csv, \.tsv nor \.parquet"),
        ("lists.parquet", "is not a Parquet file or is damaged"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name, small_data())
    frame = pd.DataFrame({"user_id": ["ann"], "item_id": ["h"], "rank": [True]})
    frame.to_parquet(tmp_path / "lists.parquet")
    with pytest.raises(InputError, match="the rank column is of type bool; store numbers"):
        read(tmp_path / "lists.parquet", small_data(), rank_column="rank")
    for changed in ({"mask": "all"}, {"unknown": "pad"}, {"incomplete": "skip"}):
        with pytest.raises(ValueError, match="must be one of"):
            read(tmp_path / "lists.parquet", small_data(), **changed)


def run(**flags):
    return teach(**default_flags(teach) | flags)


@pytest.fixture
def listed(tiny_dataset, tmp_path):
    """Every user's list of 30 items of the tiny dataset, drawn at random."""
    data = open_dataset(tiny_dataset).split("test")
    random, trained = np.random.default_rng(0), np.flatnonzero(data.is_candidate)
    ids = data.interactions
    rows = [(user, ids.item_ids[item - 1]) for user in ids.user_ids for item in random.permutation(trained)[:30]]
    return write(tmp_path / "lists.csv", rows)


def test_a_student_learns_from_lists_of_a_file(tiny_dataset, listed, tmp_path, train_flags, capsys):
    cache = run(lists=str(listed), dataset=tiny_dataset, cache=str(tmp_path / "cache"), k=5, mask="target")
    said = capsys.readouterr().out
    assert "lists.csv: 1,800 rows, 0 unknown users, 0 unknown items" in said
    data = open_dataset(tiny_dataset).split("test")
    lists = read_teacher_lists(listed, data, 5, target_length=1)
    loaded = load_teacher_cache(cache, lists.key, 5)
    np.testing.assert_array_equal(loaded.items, lists.items)
    np.testing.assert_array_equal(loaded.scores, lists.scores)
    assert not loaded.has_scores
    manifest = train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), teacher=cache, epochs=1))
    assert manifest["teacher"]["teacher"] == lists.key.teacher
    written = (tmp_path / "cache" / "items.npy").stat().st_mtime_ns
    run(lists=str(listed), dataset=tiny_dataset, cache=cache, k=5, mask="target")
    assert "teacher cache kept" in capsys.readouterr().out
    assert (tmp_path / "cache" / "items.npy").stat().st_mtime_ns == written


def test_a_student_with_short_windows_learns_from_lists_for_them(tiny_dataset, listed, tmp_path, train_flags):
    flags = {"lists": str(listed), "dataset": tiny_dataset, "cache": str(tmp_path / "cache"), "k": 5, "mask": "target"}
    cache = run(**flags, short_windows="on")
    data = open_dataset(tiny_dataset).split("test")
    lists = read_teacher_lists(listed, data, 5, target_length=1, short_windows=True)
    assert len(lists) == len(data.windows(5, 1, True)) > len(data.windows(5, 1))
    np.testing.assert_array_equal(load_teacher_cache(cache, lists.key, 5).items, lists.items)
    flags = train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), teacher=cache, epochs=1, mask="target")
    with pytest.raises(InputError, match=r"was made for windows .* is needed"):
        train(**flags)
    manifest = train(**{**flags, "model": "sasrec"})
    assert manifest["teacher"]["windows"] == manifest["windows"] == lists.key.windows


def test_other_lists_replace_a_cache_by_force_only(tiny_dataset, listed, tmp_path):
    cache = run(lists=str(listed), dataset=tiny_dataset, cache=str(tmp_path / "cache"), k=5)
    before = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    lines = listed.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    listed.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"was made for teacher .* --force"):
        run(lists=str(listed), dataset=tiny_dataset, cache=cache, k=5, mask="target")
    run(lists=str(listed), dataset=tiny_dataset, cache=cache, k=5, force=True)
    after = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    assert before["teacher"] != after["teacher"]
    # The same lists in another file are the same teacher.
    with open(listed, "rb") as file, gzip.open(tmp_path / "same.csv.gz", "wb") as zipped:
        zipped.write(file.read())
    run(lists=str(tmp_path / "same.csv.gz"), dataset=tiny_dataset, cache=cache, k=5)


def test_refused_lists_leave_nothing(tiny_dataset, listed, tmp_path):
    with pytest.raises(InputError, match="fewer than --k=30 items"):
        run(lists=str(listed), dataset=tiny_dataset, cache=str(tmp_path / "cache"), k=30)
    assert [path.name for path in tmp_path.iterdir()] == ["lists.csv"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "--teacher is empty; name a run directory, or a file by --lists, or a --saved_model"),
        ({"teacher": "t", "lists": "l"}, "--teacher=t and --lists=l: there is one teacher"),
        ({"lists": "l"}, "--cache is empty; name the directory"),
        ({"lists": "l", "dataset": ""}, "--dataset is empty"),
    ],
)
def test_flags_that_do_not_fit_together(flags, message):
    with pytest.raises(InputError, match=message):
        run(**{"dataset": "d", **flags})


@pytest.mark.parametrize("short", ["auto", "off", "on"])
def test_prepare_writes_the_windows_of_a_dataset_that_is_there(short, tiny_dataset, tmp_path, capsys):
    path = tmp_path / "windows.parquet"
    flags = {"dataset": tiny_dataset, "windows": str(path), "sequence_length": 4, "target_length": 2}
    flags["short_windows"] = short
    prepare(**default_flags(prepare) | flags | {"split": "validation"})
    windows = open_dataset(tiny_dataset).split("validation").windows(4, 2, short == "on")
    frame = pd.read_parquet(path)
    assert len(frame) == len(windows)
    assert frame.position.tolist() == windows.positions.tolist()
    assert f"windows             {len(windows):,} in {path}" in capsys.readouterr().out


def test_prepare_writes_a_dataset_and_its_windows(tmp_path):
    write(
        tmp_path / "in.csv",
        [("ann", item, time) for time, item in enumerate("abcdefg")],
        ("user_id", "item_id", "timestamp"),
    )
    flags = {
        "input": [str(tmp_path / "in.csv")],
        "dataset": str(tmp_path / "d"),
        "windows": str(tmp_path / "w.parquet"),
    }
    prepare(**default_flags(prepare) | flags)
    frame = pd.read_parquet(tmp_path / "w.parquet")
    assert ["".join(items) for items in frame.sequence] == ["abcde"]
    prepare(**default_flags(prepare) | flags)
    with pytest.raises(InputError, match=r"--windows=.*w\.txt has to end in \.parquet"):
        prepare(**default_flags(prepare) | flags | {"windows": str(tmp_path / "w.txt")})
