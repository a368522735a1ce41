"""The lists of a ranker in memory: those of its cache on disk, bound to the data they were made of."""

import json

import numpy as np
import pytest

from rd_tf.data import teacher_lists as lists_module
from rd_tf.data.teacher_lists import CacheKey, check_cache, load_teacher_cache, save_teacher_cache
from rd_tf.data.windows import open_dataset
from rd_tf.models.caser import Caser
from rd_tf.models.registry import load_model
from rd_tf.run_directory import load_run_manifest
from rd_tf.storage import InputError, file_sha256
from rd_tf.teach import teach
from rd_tf.teacher.cache import teacher_lists


@pytest.fixture(scope="module")
def data(tiny_dataset):
    return open_dataset(tiny_dataset).split("test")


@pytest.mark.parametrize("mask", ["target", "seen", "none"])
def test_lists_in_memory_are_those_of_the_cache(tiny_teacher, tiny_dataset, data, tmp_path, mask):
    lists = teacher_lists(load_model(tiny_teacher), data, k=5, mask=mask, target_length=1, block_size=32)
    arguments = {"k": 5, "mask": mask, "block_size": 32, "force": False}
    path = teach(teacher=tiny_teacher, dataset=tiny_dataset, cache=str(tmp_path / "cache"), **arguments)
    cache = load_teacher_cache(path, lists.key, 5)
    np.testing.assert_array_equal(lists.items, cache.items)
    np.testing.assert_array_equal(lists.scores, cache.scores)
    assert (lists.items.dtype, lists.scores.dtype) == (np.int32, np.float16)
    assert lists.manifest.items() <= cache.manifest.items()
    assert (len(lists), lists.k, lists.has_scores) == (len(data.windows(5, 1)), 5, True)


def test_lists_tell_what_they_belong_to(tiny_teacher, data):
    lists = teacher_lists(load_model(tiny_teacher), data, k=3, target_length=2)
    windows = data.windows(5, 2)
    teacher = load_run_manifest(tiny_teacher)["model"]["fingerprint"]
    assert lists.key == CacheKey(data.fingerprint, "test", 5, 2, windows.fingerprint(), teacher, "target")
    assert not (lists.items[:, :, None] == windows.targets[:, None, :]).any()
    other = CacheKey.of(data.fingerprint, "test", data.windows(5, 1), None, "target")
    with pytest.raises(InputError, match="was made for T 2, but T 1 is needed"):
        check_cache("in memory", lists.manifest, other, 3)


def test_long_lists_are_in_a_file_that_is_gone_with_them(tiny_teacher, data, monkeypatch, tmp_path):
    expected = teacher_lists(load_model(tiny_teacher), data, k=3)
    monkeypatch.setattr(lists_module, "_IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lists = teacher_lists(load_model(tiny_teacher), data, k=3)
    assert isinstance(lists.items, np.memmap)
    assert isinstance(lists.scores, np.memmap)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(lists.items, expected.items)
    np.testing.assert_array_equal(lists.scores, expected.scores)


def test_saved_lists_are_an_ordinary_cache(tiny_teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr(lists_module, "_CHUNK", 7)
    lists = teacher_lists(load_model(tiny_teacher), data, k=4)
    save_teacher_cache(lists, tmp_path / "cache")
    loaded = load_teacher_cache(tmp_path / "cache", lists.key, 4)
    np.testing.assert_array_equal(loaded.items, lists.items)
    np.testing.assert_array_equal(loaded.scores, lists.scores)
    assert loaded.key == lists.key
    with pytest.raises(InputError, match="exists already"):
        save_teacher_cache(lists, tmp_path / "cache")


def test_a_cache_with_a_score_that_is_not_finite_is_refused(tiny_teacher, data, tmp_path):
    lists = teacher_lists(load_model(tiny_teacher), data, k=4)
    save_teacher_cache(lists, tmp_path / "cache")
    scores = np.array(lists.scores)
    scores[3, 2] = np.nan
    np.save(tmp_path / "cache" / "scores.npy", scores)
    manifest = lists.manifest | {
        "items_sha256": file_sha256(tmp_path / "cache" / "items.npy"),
        "scores_sha256": file_sha256(tmp_path / "cache" / "scores.npy"),
    }
    (tmp_path / "cache" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"is damaged: scores\.npy holds a score that is not finite; make it again"):
        load_teacher_cache(tmp_path / "cache", lists.key, 4)


def test_what_cannot_be_listed_is_refused(tiny_teacher, data):
    model = load_model(tiny_teacher)
    with pytest.raises(InputError, match="--k=99 is larger than the catalogue"):
        teacher_lists(model, data, k=99)
    with pytest.raises(ValueError, match="mask must be one of target, seen, none; received 'all'"):
        teacher_lists(model, data, mask="all")
    other = Caser(data.num_users, data.num_items + 1, 5, 4)
    with pytest.raises(ValueError, match=rf"the teacher must have .* and {data.num_items} items of the data; received"):
        teacher_lists(other, data)
