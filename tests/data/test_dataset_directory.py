"""A dataset comes back as it was written, or not at all."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from rd_tf.data.dataset_directory import load_dataset, load_manifest, save_dataset
from rd_tf.data.interactions import Interactions, user_offsets
from rd_tf.errors import InputError


@pytest.fixture
def interactions():
    return Interactions(
        np.array([0, 0, 2], np.int32),
        np.array([2, 1, 1], np.int32),
        np.array([-5, 2**62, 0], np.int64),
        ["a\u2028b", " ", "\u0085"],
        ["1,5", "é"],
    )


def test_round_trip(interactions, tmp_path):
    manifest = save_dataset(interactions, tmp_path / "d", {"input": ["x.csv"]})
    loaded = load_dataset(tmp_path / "d")
    for name in ("users", "items", "timestamps"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(interactions, name))
        assert getattr(loaded, name).dtype == getattr(interactions, name).dtype
    assert (loaded.user_ids, loaded.item_ids) == (interactions.user_ids, interactions.item_ids)
    assert load_manifest(tmp_path / "d") == manifest
    assert manifest["source"] == {"input": ["x.csv"]}
    assert (manifest["users"], manifest["items"], manifest["interactions"]) == (3, 2, 3)


def test_files_are_as_documented(interactions, tmp_path):
    save_dataset(interactions, tmp_path / "d", {})
    assert (tmp_path / "d" / "items.txt").read_bytes() == "1,5\né\n".encode()
    schema = pq.read_schema(tmp_path / "d" / "interactions.parquet")
    assert [(field.name, str(field.type)) for field in schema] == [
        ("user", "int32"),
        ("item", "int32"),
        ("timestamp", "int64"),
    ]


def test_an_existing_directory_is_kept_unless_it_may_be_replaced(interactions, tmp_path):
    save_dataset(interactions, tmp_path / "d", {"try": 1})
    with pytest.raises(InputError, match="exists already"):
        save_dataset(interactions, tmp_path / "d", {"try": 2})
    assert load_manifest(tmp_path / "d")["source"] == {"try": 1}
    save_dataset(interactions, tmp_path / "d", {"try": 2}, replace=True)
    assert load_manifest(tmp_path / "d")["source"] == {"try": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_fingerprint_sees_every_part(interactions):
    fields = vars(interactions)
    changed = {
        "users": fields["users"][::-1],
        "items": fields["items"][::-1],
        "timestamps": fields["timestamps"] + 1,
        "user_ids": fields["user_ids"][::-1],
        "item_ids": fields["item_ids"][::-1],
    }
    prints = {Interactions(**fields | {name: value}).fingerprint() for name, value in changed.items()}
    assert len(prints | {interactions.fingerprint()}) == 6


def test_what_is_no_dataset(tmp_path):
    with pytest.raises(InputError, match=r"none is not a directory; make one with python -m rd_tf\.prepare"):
        load_dataset(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        load_dataset(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "interactions": 1}')
    with pytest.raises(InputError, match=r"of another kind \(no usable 'users'\)"):
        load_dataset(tmp_path)


def test_another_format_is_refused(interactions, tmp_path):
    manifest = save_dataset(interactions, tmp_path / "d", {})
    (tmp_path / "d" / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError, match=r"has format 99, not 1; prepare the data again"):
        load_dataset(tmp_path / "d")


def test_an_empty_name_is_refused():
    with pytest.raises(InputError, match="--dataset is empty; name a dataset directory"):
        load_dataset("")


@pytest.mark.parametrize("name", ["interactions.parquet", "users.txt", "items.txt"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damage_is_seen(interactions, tmp_path, name, damage):
    save_dataset(interactions, tmp_path / "d", {})
    path = tmp_path / "d" / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="prepare the data again"):
        load_dataset(tmp_path / "d")


def test_an_altered_manifest_is_seen(interactions, tmp_path):
    manifest = save_dataset(interactions, tmp_path / "d", {})
    (tmp_path / "d" / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 64}))
    with pytest.raises(InputError, match="does not match the fingerprint"):
        load_dataset(tmp_path / "d")


def test_user_offsets_of_users_with_and_without_rows():
    assert user_offsets(np.array([0, 0, 2], np.int32), 4).tolist() == [0, 2, 2, 3, 3]
