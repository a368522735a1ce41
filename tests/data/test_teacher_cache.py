"""The cache on disk: what was stored comes back, anything else is refused by name."""

import dataclasses
import json

import numpy as np
import pytest

from rd_tf.data.teacher_cache import CacheKey, is_teacher_cache, load_teacher_cache, write_teacher_cache
from rd_tf.errors import InputError

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
    with pytest.raises(InputError, match=r"items\.npy is not 5 x 3 int32"):
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
