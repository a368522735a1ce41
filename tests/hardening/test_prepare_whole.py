"""The command prepare on damaged input: a whole dataset of the rows that are there, or a sentence and no dataset."""

import shutil

import pytest
from damage import TEXT_SCRAPS, damaged, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.command_line import default_flags
from rd_tf.data.dataset import load_dataset, load_manifest
from rd_tf.data.readers.check_ins import read_check_ins
from rd_tf.prepare import prepare

CONTENT = b"user_id,item_id,timestamp\nbob,park,5\nann,cafe,9\nbob,cafe,3\nann,cafe,2\nann,park,4\neve,zoo,1\n"
COLUMNS = {"user_column": "user_id", "item_column": "item_id", "time_column": "timestamp"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prepare")


def expected_rows(paths):
    """Rows by user in the order of appearance, a user's by time, equal times in the order of the files."""
    read = read_check_ins(paths, "auto", COLUMNS, skip_bad_rows=True)
    users, items = (
        [ids[code] for code in codes] for codes, ids in ((read.users, read.user_ids), (read.items, read.item_ids))
    )
    rows = list(zip(users, items, read.timestamps.tolist(), strict=True))
    order = list(dict.fromkeys(users))
    return sorted(rows, key=lambda row: (order.index(row[0]), row[2])), read


@settings(max_examples=60)
@given(
    contents=st.lists(damaged(CONTENT, TEXT_SCRAPS) | st.just(CONTENT), min_size=1, max_size=2),
    skip_bad_rows=st.booleans(),
    duplicates=st.sampled_from(["keep_all", "keep_last", "keep_first"]),
    least=st.integers(1, 3),
    force=st.booleans(),
)
def test_a_whole_dataset_or_none(folder, contents, skip_bad_rows, duplicates, least, force):
    shutil.rmtree(folder)
    folder.mkdir()
    names = [f"{number}.csv" for number in range(len(contents))]
    paths = [str(folder / name) for name in names]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    chosen = {"skip_bad_rows": skip_bad_rows, "duplicates": duplicates, "min_user_items": least, "force": force}
    with refusing(folder, "nothing remains: ", "--input: no row can be used") as refused:
        prepare(**default_flags(prepare) | chosen | {"input": paths, "dataset": str(folder / "d")})
    there = sorted(path.name for path in folder.iterdir())
    assert there == (names if refused else [*names, "d"])
    if refused:
        return
    found, source = load_dataset(folder / "d"), load_manifest(folder / "d")["source"]
    users = [found.user_ids[user] for user in found.users]
    items = [found.item_ids[item - 1] for item in found.items]
    rows = list(zip(users, items, found.timestamps.tolist(), strict=True))
    expected, read = expected_rows(paths)
    assert source["skipped_rows"]["count"] == sum(read.skipped.values()) == source["rows_read"] - len(expected)
    dropped = source["duplicates_dropped"] + source["k_core_rows_dropped"]
    assert len(rows) == source["rows_read"] - source["skipped_rows"]["count"] - dropped
    if duplicates == "keep_all" and least == 1:
        assert rows == expected
    else:
        assert all(row in expected for row in rows)
