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
from rd_tf.teacher.scoring import RankerTeacher, lists_of
from rd_tf.training.distiller import RankingDistiller


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


def plain_lists(model, data, windows, k):
    """The best items for every window by what came before its target, a window at a time."""
    lists = []
    for user, position in zip(windows.users.tolist(), windows.positions.tolist(), strict=True):
        history = data.items[data.users == user].tolist()
        before = ([0] * model.sequence_length + history[:position])[-model.sequence_length :]
        query = model.encode(np.array([user], np.int32), np.array([before], np.int32))
        scores = np.where(data.is_candidate, np.asarray(model.score_all(query))[0], -np.inf)
        scores[history[position]] = -np.inf
        lists.append(-np.sort(-scores)[:k])
    return np.array(lists)


@pytest.mark.parametrize(("length", "short"), [(3, False), (3, True), (5, True), (9, False), (9, True)])
def test_a_ranker_of_another_length_teaches_the_windows_of_its_student(tiny_sasrec, data, length, short):
    teacher, student = load_model(tiny_sasrec), Caser.for_dataset(data, sequence_length=length, dim=4)
    windows = data.windows(length, 1, short)
    lists = lists_of(RankerTeacher(teacher, data), windows, k=4, mask="target")
    assert lists.key.windows == windows.fingerprint()
    some = np.random.default_rng(0).permutation(len(windows))[:40]
    part = type(windows)(*(getattr(windows, name)[some] for name in ("users", "positions", "sequences", "targets")))
    np.testing.assert_allclose(lists.scores[some], plain_lists(teacher, data, part, 4), rtol=1e-3, atol=1e-3)
    distiller = RankingDistiller(student, lists)
    distiller.compile()
    assert len(distiller.batches(data, 64, 3, short_windows=short).windows) == len(windows)
    with pytest.raises(ValueError, match="the teacher's lists belong to other windows than the"):
        distiller.batches(data, 64, 3, short_windows=not short)


def test_lists_are_made_for_the_windows_that_the_ranker_asks_for(tiny_sasrec, tiny_teacher, data):
    for run, short in ((tiny_sasrec, True), (tiny_teacher, False)):
        model = load_model(run)
        lists = teacher_lists(model, data, k=3)
        assert lists.key.windows == data.windows(5, 1, short).fingerprint() == load_run_manifest(run)["windows"]
        assert load_run_manifest(run)["short_windows"] == short
        other = teacher_lists(model, data, k=3, short_windows=not short)
        assert other.key.windows == data.windows(5, 1, not short).fingerprint()


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
