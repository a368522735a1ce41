"""A dataset directory, whatever happens to its files, gives the data it was made of or is refused."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damaged, damaged_json, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.data.dataset import load_dataset, load_manifest, save_dataset
from rd_tf.data.interactions import Interactions

DATA = Interactions(
    np.array([0, 0, 0, 1, 2], np.int32),
    np.array([2, 1, 3, 1, 3], np.int32),
    np.array([-5, 2, 2**62, 0, 7], np.int64),
    ["a\u2028b", " ", "é"],
    ["1,5", "\0", "park"],
)
NAMES = ["manifest.json", "interactions.parquet", "users.txt", "items.txt"]
COLUMNS = {"user": DATA.users, "item": DATA.items, "timestamp": DATA.timestamps}
TYPES = [pa.int8(), pa.int64(), pa.uint16(), pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.bool_()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "d"
    save_dataset(DATA, path, {"input": ["x.csv"], "input_sha256": ["0" * 64]})
    return path


@pytest.fixture(scope="module")
def contents(dataset):
    return {name: (dataset / name).read_bytes() for name in NAMES}


def check(dataset, contents, name, content):
    """Loads with one file's content replaced: the data are the original ones, or refused."""
    for each in NAMES:
        (dataset / each).write_bytes(content if each == name else contents[each])
    with refusing(dataset):
        loaded = load_dataset(dataset)
        for array in ("users", "items", "timestamps"):
            np.testing.assert_array_equal(getattr(loaded, array), getattr(DATA, array))
            assert getattr(loaded, array).dtype == getattr(DATA, array).dtype
        assert (loaded.user_ids, loaded.item_ids) == (DATA.user_ids, DATA.item_ids)
        manifest = load_manifest(dataset)
        assert (manifest["users"], manifest["items"], manifest["interactions"]) == (3, 3, 5)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_manifest(dataset, contents, data):
    document = json.loads(contents["manifest.json"])
    check(dataset, contents, "manifest.json", data.draw(damaged_json(document)).encode())


@settings(max_examples=250)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_damaged_bytes(dataset, contents, data, name):
    check(dataset, contents, name, data.draw(damaged(contents[name])))


@settings(max_examples=80)
@given(data=st.data(), name=st.sampled_from(["users.txt", "items.txt"]))
def test_lines_that_are_lost_doubled_or_moved(dataset, contents, data, name):
    lines = contents[name].splitlines(keepends=True)
    moved = data.draw(st.lists(st.sampled_from([*lines, b"new\n", b"\n", b"\r\n", b"open end"]), max_size=5))
    check(dataset, contents, name, b"".join(moved))


@settings(max_examples=80)
@given(data=st.data(), column=st.sampled_from(list(COLUMNS)), kind=st.sampled_from(TYPES))
def test_columns_of_another_type_or_order(dataset, contents, data, column, kind):
    values = data.draw(st.permutations(COLUMNS[column].tolist()) | st.lists(st.integers(0, 3), min_size=5, max_size=5))
    lost = data.draw(st.none() | st.integers(0, 4))
    values = [None if row == lost else value for row, value in enumerate(values)]
    columns = {**COLUMNS, column: cast(values, kind)}
    order = data.draw(st.permutations(list(columns)))
    content = io.BytesIO()
    pq.write_table(pa.table({name: columns[name] for name in order}), content)
    check(dataset, contents, "interactions.parquet", content.getvalue())


def cast(values, kind):
    try:
        return pa.array(values, pa.int64()).cast(pa.string() if kind == pa.binary() else kind, safe=False).cast(kind)
    except pa.ArrowInvalid:
        return pa.nulls(len(values), kind)
