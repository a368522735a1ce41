"""The cache on disk: what was stored comes back, anything else is refused by name."""

import dataclasses
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rd_tf.teacher.cache
from rd_tf.data.teacher_lists import (
    CacheKey,
    ShardedArray,
    cache_manifest,
    files_in,
    is_teacher_cache,
    load_teacher_cache,
    open_lists,
    write_teacher_cache,
)
from rd_tf.models import registry
from rd_tf.storage import InputError
from rd_tf.teacher.cache import keep_or_make, make_cache
from rd_tf.train import teacher_fingerprint

KEY = CacheKey("d" * 64, "test", 5, 1, "a" * 64, "e" * 64, "target")
ITEMS, SCORES = np.arange(12).reshape(4, 3) + 1, np.linspace(-2, 2, 12).reshape(4, 3)


@pytest.fixture
def cache(tmp_path):
    with write_teacher_cache(tmp_path / "cache", KEY, rows=4, k=3) as store:
        store(0, ITEMS[:3], SCORES[:3])
        store(3, ITEMS[3:], SCORES[3:])
    return tmp_path / "cache"


def test_what_was_stored_comes_back_memory_mapped(cache):
    loaded = load_teacher_cache(cache, KEY, k=3)
    assert isinstance(loaded.items, np.memmap)
    assert (loaded.items.dtype, loaded.scores.dtype) == (np.int32, np.float16)
    np.testing.assert_array_equal(loaded.items, ITEMS)
    np.testing.assert_allclose(loaded.scores, SCORES, rtol=1e-3)


def test_a_longer_list_serves_a_shorter_k(cache):
    np.testing.assert_array_equal(load_teacher_cache(cache, KEY, k=2).items, ITEMS[:, :2])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dataset", "f" * 64, "for dataset dddddddddddddddd, but dataset ffffffffffffffff is needed"),
        ("split", "validation", "for split test, but split validation is needed"),
        ("sequence_length", 6, "for L 5, but L 6 is needed"),
        ("target_length", 2, "for T 1, but T 2 is needed"),
        ("windows", "b" * 64, "for windows a+, but windows b+ is needed"),
        ("teacher", "0" * 64, "for teacher e+, but teacher 0+ is needed"),
        ("mask", "seen", "for mask target, but mask seen is needed"),
    ],
)
def test_a_cache_of_something_else_is_refused_with_both_values(cache, field, value, message):
    with pytest.raises(InputError, match=message):
        load_teacher_cache(cache, dataclasses.replace(KEY, **{field: value}), k=3)


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        (
            "sequence_length",
            "train the student with --sequence_length=5, or give the teacher's run directory as --teacher",
        ),
        ("target_length", "train the student with --target_length=1, or give the teacher's run directory as --teacher"),
        ("windows", "train the student with the --short_windows of the lists"),
        ("mask", "make it again with python -m rd_tf.teach"),
    ],
)
def test_a_cache_of_other_windows_says_how_it_can_be_used(cache, field, hint):
    with pytest.raises(InputError) as refused:
        load_teacher_cache(cache, dataclasses.replace(KEY, **{field: 7}), k=3)
    assert hint in str(refused.value)


def test_a_list_with_an_item_twice_is_found(tmp_path):
    items = np.arange(3000).reshape(1000, 3) + 1
    with write_teacher_cache(tmp_path / "good", KEY, rows=1000, k=3) as store:
        store(0, items, np.zeros((1000, 3)))
    assert load_teacher_cache(tmp_path / "good", KEY, k=3).repeated() is None
    items[700, 0] = items[700, 2]
    with write_teacher_cache(tmp_path / "bad", KEY, rows=1000, k=3) as store:
        store(0, items, np.zeros((1000, 3)))
    bad = load_teacher_cache(tmp_path / "bad", KEY, k=3)
    assert bad.repeated() == 700
    assert ShardedArray([np.asarray(bad.items)[:700], np.asarray(bad.items)[700:]]).shape == (1000, 3)
    halves = [np.asarray(bad.items)[:600], np.asarray(bad.items)[600:]]
    assert dataclasses.replace(bad, items=ShardedArray(halves)).repeated() == 700


def test_a_cache_is_known_by_its_lists(cache, tmp_path):
    before = teacher_fingerprint(str(cache))
    manifest = json.loads((cache / "manifest.json").read_text())
    (cache / "manifest.json").write_text(json.dumps({**manifest, "teacher": "anything"}))
    assert teacher_fingerprint(str(cache)) == before
    with write_teacher_cache(tmp_path / "other", KEY, rows=4, k=3) as store:
        store(0, ITEMS[::-1], SCORES)
    assert teacher_fingerprint(str(tmp_path / "other")) != before


def test_a_teacher_that_cannot_be_written_names_the_flag_for_another_place(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(rd_tf.teacher.cache, "atomic_directory", refuse)
    with pytest.raises(
        InputError, match=r"cannot be written \(Permission denied\); make the lists elsewhere.*--cache="
    ):
        keep_or_make(tmp_path / "top_k" / "lists", KEY, 3, refuse, is_default_place=True)


def test_lists_that_are_too_short_are_refused(cache):
    with pytest.raises(InputError, match="has lists of 3 items, but --k=4 is needed"):
        load_teacher_cache(cache, KEY, k=4)


def test_a_cut_off_file_is_refused(cache):
    content = (cache / "items.npy").read_bytes()
    (cache / "items.npy").write_bytes(content[:-5])
    with pytest.raises(InputError, match="is damaged"):
        load_teacher_cache(cache, KEY, k=3)


def test_altered_contents_are_refused(cache):
    np.save(cache / "scores.npy", np.zeros((4, 3), np.float16))
    with pytest.raises(InputError, match=r"scores.npy is not what its manifest.json says"):
        load_teacher_cache(cache, KEY, k=3)


def test_a_manifest_that_lacks_a_value_is_refused(cache):
    found = json.loads((cache / "manifest.json").read_text())
    del found["k"]
    (cache / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="no usable 'k'"):
        load_teacher_cache(cache, KEY, k=3)


def test_arrays_of_another_size_are_refused(cache):
    manifest = json.loads((cache / "manifest.json").read_text())
    (cache / "manifest.json").write_text(json.dumps({**manifest, "rows": 5}))
    with pytest.raises(InputError, match=r"items\.npy is not 5 x 3 of int32"):
        load_teacher_cache(cache, KEY, k=3)


def test_a_directory_that_is_no_cache_is_refused(tmp_path):
    assert not is_teacher_cache(tmp_path)
    with pytest.raises(InputError, match="is not a teacher cache"):
        load_teacher_cache(tmp_path, KEY, k=3)


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    def fail():
        with write_teacher_cache(tmp_path / "cache", KEY, rows=4, k=3) as store:
            store(0, ITEMS, SCORES)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_scores_too_large_for_half_precision_are_clipped(tmp_path):
    with write_teacher_cache(tmp_path / "cache", KEY, rows=1, k=2) as store:
        store(0, np.array([[1, 2]]), np.array([[1e9, -1e9]]))
    np.testing.assert_array_equal(load_teacher_cache(tmp_path / "cache", KEY, k=2).scores, [[65504, -65504]])


def test_rows_out_of_order_or_missing_are_refused(tmp_path):
    def write(*firsts):
        with write_teacher_cache(tmp_path / "cache", KEY, rows=4, k=3) as store:
            for first in firsts:
                store(first, ITEMS[:2], SCORES[:2])

    with pytest.raises(ValueError, match="row 2 is the next one; received row 1"):
        write(0, 1)
    with pytest.raises(ValueError, match="4 rows were announced; received 2"):
        write(0)
    assert list(tmp_path.iterdir()) == []


# Rows of the shards; the second one is empty.
SHARDS = [3, 0, 1]


@pytest.fixture
def sharded(tmp_path):
    path = tmp_path / "sharded"
    path.mkdir()
    described, begin = [], 0
    for number, rows in enumerate(SHARDS):
        with open_lists(files_in(path), number, len(SHARDS), rows, k=3) as writer:
            writer.store(0, ITEMS[begin : begin + rows], SCORES[begin : begin + rows])
        described.append(writer.described())
        begin += rows
    manifest = cache_manifest(KEY, 3, described, sharded=True)
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize("k", [3, 2])
def test_a_sharded_cache_has_the_rows_of_one_that_is_not(sharded, cache, k):
    loaded, whole = load_teacher_cache(sharded, KEY, k), load_teacher_cache(cache, KEY, k)
    rows = np.array([3, 0, 3, 2, 1])
    for name in ("items", "scores"):
        np.testing.assert_array_equal(getattr(loaded, name)[rows], getattr(whole, name)[rows])
        assert getattr(loaded, name).shape == (4, k)
        assert getattr(loaded, name).dtype == getattr(whole, name).dtype
    assert loaded.item_range() == whole.item_range() == (1, 9 + k)
    assert loaded.manifest["rows"] == 4


def test_files_of_a_sharded_cache(sharded):
    names = [f"{name}-0000{number}-of-00003.npy" for name in ("items", "scores") for number in range(3)]
    assert {path.name for path in sharded.iterdir()} == {*names, "manifest.json"}
    shards = json.loads((sharded / "manifest.json").read_text())["shards"]
    assert [shard["rows"] for shard in shards] == SHARDS
    assert shards[0].keys() == {"rows", "items_sha256", "scores_sha256"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is damaged .*No such file.*items-00002-of-00003.npy"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: np.save(path, np.ones((1, 3), np.int32)), "items-00002-of-00003.npy is not what its manifest"),
        (lambda path: shutil.copy(path.with_name("items-00000-of-00003.npy"), path), "is not what its manifest"),
    ],
)
def test_a_damaged_or_missing_shard_is_refused_by_name(sharded, damage, message):
    damage(sharded / "items-00002-of-00003.npy")
    with pytest.raises(InputError, match=rf"{message}.*make it again with python -m rd_tf\.teach"):
        load_teacher_cache(sharded, KEY, k=3)


@pytest.mark.parametrize(
    "shards", [None, [], {"rows": 4}, [4], [{"rows": 4}], [{"rows": 3, "items_sha256": "", "scores_sha256": ""}]]
)
def test_a_manifest_with_unusable_shards_is_refused(sharded, shards):
    manifest = json.loads((sharded / "manifest.json").read_text())
    (sharded / "manifest.json").write_text(json.dumps({**manifest, "shards": shards}))
    with pytest.raises(
        InputError, match=r"manifest\.json is damaged: it does not tell rows and checksums of its files"
    ):
        load_teacher_cache(sharded, KEY, k=3)


def test_the_same_lists_wanted_twice_at_once_are_made_once(tiny_teacher, tiny_dataset, tmp_path, monkeypatch, capsys):
    teacher = str(shutil.copytree(tiny_teacher, tmp_path / "teacher", ignore=shutil.ignore_patterns("top_k")))
    load_model = registry.load_model

    def load_slowly(*arguments):
        # Both have seen by now that there is no cache.
        time.sleep(0.5)
        return load_model(*arguments)

    monkeypatch.setattr(registry, "load_model", load_slowly)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: make_cache(teacher, tiny_dataset, "", 4, "seen", 64, False), range(2)))
    assert made[0] == made[1]
    said = capsys.readouterr().out
    assert said.count("teacher cache: ") == said.count("teacher cache kept: ") == 1
