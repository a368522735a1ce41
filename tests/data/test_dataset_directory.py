"""A dataset comes back as it was written, or not at all."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rd_tf.data.dataset import load_dataset, load_manifest, load_shard, save_dataset, write_interactions
from rd_tf.data.interactions import Interactions, user_offsets
from rd_tf.storage import InputError


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


COLUMNS = ("users", "items", "timestamps")


@pytest.fixture
def seven_users():
    users = np.repeat(np.arange(7, dtype=np.int32), [3, 0, 1, 2, 0, 4, 1])
    items = np.arange(1, 12, dtype=np.int32)
    return Interactions(users, items, np.arange(11), list("abcdefg"), [str(item) for item in items])


@pytest.mark.parametrize("shards", [1, 3, 7, 99])
def test_shards_are_the_whole_in_pieces(seven_users, tmp_path, shards):
    whole = save_dataset(seven_users, tmp_path / "whole", {})
    manifest = save_dataset(seven_users, tmp_path / "sharded", {}, shards=shards)
    entries = manifest.pop("shards")
    assert manifest == whole
    assert len(entries) == min(shards, 7)
    assert max(entry["users"] for entry in entries) - min(entry["users"] for entry in entries) <= 1
    loaded = load_dataset(tmp_path / "sharded")
    pieces = [load_shard(tmp_path / "sharded", number) for number in range(len(entries))]
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(seven_users, name))
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        np.testing.assert_array_equal(joined, getattr(seven_users, name))
        assert joined.dtype == getattr(seven_users, name).dtype
    for piece, entry in zip(pieces, entries, strict=True):
        assert (piece.first_user, piece.num_users, len(piece)) == tuple(entry.values())
    assert load_dataset(tmp_path / "whole").fingerprint() == loaded.fingerprint()


def test_files_of_a_sharded_dataset(seven_users, tmp_path):
    manifest = save_dataset(seven_users, tmp_path / "d", {}, shards=2)
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "interactions-00000-of-00002.parquet",
        "interactions-00001-of-00002.parquet",
        "items.txt",
        "manifest.json",
        "users.txt",
    ]
    assert manifest["shards"] == [
        {"first_user": 0, "users": 3, "rows": 4},
        {"first_user": 3, "users": 4, "rows": 7},
    ]


def test_an_unsharded_dataset_is_its_own_shard_0(seven_users, tmp_path):
    assert "shards" not in save_dataset(seven_users, tmp_path / "d", {})
    piece = load_shard(tmp_path / "d", 0)
    assert (piece.first_user, piece.num_users) == (0, 7)
    np.testing.assert_array_equal(piece.users, seven_users.users)
    with pytest.raises(ValueError, match="has the shards 0 to 0; received 1"):
        load_shard(tmp_path / "d", 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([4, 5, 5], [1, 2, 3], [1, 2, 3]), "holds 3 rows and not 7"),
        (([2, 3, 3, 5, 5, 5, 6], [1] * 7, [1] * 7), "does not hold the users 3 to 6 in their order"),
        (([3, 3, 5, 5, 5, 6, 7], [1] * 7, [1] * 7), "does not hold the users 3 to 6 in their order"),
        (([3, 3, 5, 4, 5, 5, 6], [1] * 7, [1] * 7), "does not hold the users 3 to 6 in their order"),
        (None, "cannot be read"),
        (b"PAR1 and no more", "cannot be read"),
    ],
)
@pytest.mark.parametrize("load", [load_dataset, lambda path: load_shard(path, 1)])
def test_a_shard_that_is_not_the_manifests(seven_users, tmp_path, rows, message, load):
    save_dataset(seven_users, tmp_path / "d", {}, shards=2)
    path = tmp_path / "d" / "interactions-00001-of-00002.parquet"
    path.unlink()
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    elif rows:
        write_interactions(path, [tuple(map(np.array, rows))])
    with pytest.raises(
        InputError, match=rf"interactions-00001-of-00002\.parquet .*{message}.*; prepare the data again"
    ):
        load(tmp_path / "d")


@pytest.mark.parametrize(
    "shards",
    [
        [],
        {"rows": 11},
        [{"first_user": 0, "users": 7}],
        [{"first_user": 0, "users": 7, "rows": 10}],
        [{"first_user": 0, "users": 3, "rows": 4}, {"first_user": 4, "users": 3, "rows": 7}],
    ],
)
def test_a_manifest_with_unusable_shards(seven_users, tmp_path, shards):
    manifest = save_dataset(seven_users, tmp_path / "d", {}, shards=2)
    (tmp_path / "d" / "manifest.json").write_text(json.dumps(manifest | {"shards": shards}))
    with pytest.raises(InputError, match=r"manifest\.json is damaged \(no usable 'shards'\); prepare the data again"):
        load_manifest(tmp_path / "d")


def test_another_type_of_column_is_no_interactions_file(seven_users, tmp_path):
    save_dataset(seven_users, tmp_path / "d", {})
    path = tmp_path / "d" / "interactions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "user", table["user"].cast("int64")), path)
    with pytest.raises(InputError, match=r"interactions\.parquet cannot be read \(it holds .*int64"):
        load_shard(tmp_path / "d", 0)


def test_the_bytes_of_a_file_do_not_tell_how_it_was_written(tmp_path):
    rows = 2**20 + 5
    users, items = np.arange(rows, dtype=np.int32), np.ones(rows, np.int32)
    timestamps = np.arange(rows)
    table = {"user": users, "item": items, "timestamp": timestamps}
    pq.write_table(pa.table(table), tmp_path / "pyarrow.parquet")
    cuts = [slice(0, 7), slice(7, 7), slice(7, 2**20 + 1), slice(2**20 + 1, rows)]
    assert write_interactions(tmp_path / "parts", [(users[cut], items[cut], timestamps[cut]) for cut in cuts]) == rows
    write_interactions(tmp_path / "whole", [(users, items, timestamps)])
    expected = (tmp_path / "pyarrow.parquet").read_bytes()
    assert (tmp_path / "parts").read_bytes() == expected
    assert (tmp_path / "whole").read_bytes() == expected
