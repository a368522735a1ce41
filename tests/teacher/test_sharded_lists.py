"""The lists of a sharded dataset: its windows' rows, in shards, and training from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_shards import SHARDS, cut_power_in_the_second_shard

from rd_tf.data import windows
from rd_tf.data.dataset import load_dataset, save_dataset
from rd_tf.data.teacher_lists import (
    CacheKey,
    ShardedArray,
    cache_manifest,
    files_in,
    load_teacher_cache,
    open_lists,
    write_teacher_cache,
)
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.teacher.scoring import TopK
from rd_tf.train import train


def make(teacher, dataset, cache, **changed):
    flags = {"k": 5, "mask": "target", "block_size": 32, "force": False, **changed}
    return Path(teach(teacher=str(teacher), dataset=str(dataset), cache=str(cache), **flags))


def contents(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def manifest(directory):
    return json.loads((Path(directory) / "manifest.json").read_text())


def load(cache, k=5):
    found = manifest(cache)
    return load_teacher_cache(cache, CacheKey(**{name: found[name] for name in CacheKey.__dataclass_fields__}), k)


@pytest.mark.parametrize(
    ("model", "mask"), [("caser", "target"), ("caser", "seen"), ("fossil", "none"), ("sasrec", "target")]
)
def test_a_sharded_dataset_gives_the_same_lists_in_shards(
    request, tiny_dataset, sharded_dataset, tmp_path, model, mask
):
    teachers = {"caser": "tiny_teacher", "fossil": "tiny_fossil", "sasrec": "tiny_sasrec"}
    teacher = request.getfixturevalue(teachers[model])
    whole = load(make(teacher, tiny_dataset, tmp_path / "whole", mask=mask))
    sharded = load(make(teacher, sharded_dataset, tmp_path / "sharded", mask=mask))
    rows = np.arange(len(whole.items))
    np.testing.assert_array_equal(sharded.items[rows], whole.items)
    np.testing.assert_allclose(sharded.scores[rows], whole.scores, rtol=2e-3, atol=1e-3)
    files = {"items_sha256", "scores_sha256"}
    assert {k: v for k, v in whole.manifest.items() if k not in files} == {
        k: v for k, v in sharded.manifest.items() if k != "shards"
    }
    assert isinstance(whole.items, np.memmap)
    # A shard's rows are the windows of its users; each of the 20 has several.
    assert [len(part) for part in sharded.items.parts] == [shard["rows"] for shard in sharded.manifest["shards"]]
    assert min(len(part) for part in sharded.items.parts) > 20


def test_a_teaching_that_is_killed_half_way_leaves_nothing_and_can_be_repeated(
    monkeypatch, tiny_teacher, sharded_dataset, tmp_path
):
    expected = contents(make(tiny_teacher, sharded_dataset, tmp_path / "expected"))
    with monkeypatch.context() as patch:
        cut_power_in_the_second_shard(patch)
        with pytest.raises(RuntimeError, match="power cut"):
            make(tiny_teacher, sharded_dataset, tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["expected"]
    assert contents(make(tiny_teacher, sharded_dataset, tmp_path / "cache")) == expected


def test_a_cache_that_fits_is_kept_and_another_one_only_replaced_by_force(
    tiny_teacher, tiny_fossil, sharded_dataset, tmp_path, capsys
):
    before = make(tiny_teacher, sharded_dataset, tmp_path / "cache").joinpath("manifest.json").stat().st_mtime_ns
    make(tiny_teacher, sharded_dataset, tmp_path / "cache", k=4)
    assert "teacher cache kept" in capsys.readouterr().out
    assert (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"was made for teacher .* --force"):
        make(tiny_fossil, sharded_dataset, tmp_path / "cache")
    make(tiny_fossil, sharded_dataset, tmp_path / "cache", force=True)
    assert manifest(tmp_path / "cache")["teacher"] == manifest(tiny_fossil)["model"]["fingerprint"]


def test_k_larger_than_what_the_mask_leaves_of_any_shard_is_refused_at_once(
    monkeypatch, tiny_teacher, sharded_dataset, tmp_path
):
    monkeypatch.setattr(TopK, "all_lists", lambda *_: pytest.fail("a shard was listed"))
    with pytest.raises(InputError, match=r"--k=70 is larger than the catalogue .* that --mask=seen keeps out"):
        make(tiny_teacher, sharded_dataset, tmp_path / "cache", k=70, mask="seen")


def test_a_damaged_shard_of_the_dataset_is_refused(tiny_teacher, tiny_dataset, tmp_path):
    save_dataset(load_dataset(tiny_dataset), tmp_path / "d", {}, shards=SHARDS)
    (tmp_path / "d" / "interactions-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match=r"interactions-00001-of-00003\.parquet cannot be read"):
        make(tiny_teacher, tmp_path / "d", tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_training_from_shards_gives_the_same_weights(
    tiny_teacher, tiny_dataset, sharded_dataset, tmp_path, train_flags
):
    sharded = load(make(tiny_teacher, sharded_dataset, tmp_path / "sharded"))
    assert isinstance(sharded.items, ShardedArray)
    # The same lists in one file: made of the whole dataset, blocks of another shape could round other scores.
    key = CacheKey(**{name: sharded.manifest[name] for name in CacheKey.__dataclass_fields__})
    rows = np.arange(len(sharded.items))
    with write_teacher_cache(tmp_path / "whole", key, len(rows), 5) as store:
        store(0, sharded.items[rows], sharded.scores[rows])
    pairs = [(tiny_dataset, tmp_path / "whole"), (sharded_dataset, tmp_path / "sharded")]
    fingerprints = set()
    for number, (dataset, teacher) in enumerate(pairs):
        run = train(**train_flags(run_dir=str(tmp_path / f"{number}"), dataset=dataset, teacher=str(teacher), epochs=1))
        fingerprints.add(run["model"]["fingerprint"])
    assert len(fingerprints) == 1


def test_training_makes_the_lists_of_a_sharded_dataset_itself(
    monkeypatch, tiny_teacher, sharded_dataset, tmp_path, train_flags
):
    expected, cut = contents(make(tiny_teacher, sharded_dataset, tmp_path / "cache", k=3, block_size=16)), []
    make_windows = windows.make_windows
    monkeypatch.setattr(windows, "make_windows", lambda *arguments: cut.append(arguments) or make_windows(*arguments))
    flags = {"run_dir": str(tmp_path / "run"), "teacher": tiny_teacher, "epochs": 1, "k": 3, "block_size": 16}
    train(**train_flags(dataset=sharded_dataset, **flags))
    # Of the windows that it trains on, which are not cut again.
    assert len(cut) == 1
    made = contents(Path(tiny_teacher) / "top_k" / "test-k3-target")
    assert made == expected
    assert len(json.loads(made["manifest.json"])["shards"]) == SHARDS


def test_items_beyond_the_catalogue_in_a_shard_are_refused(tiny_teacher, sharded_dataset, tmp_path, train_flags):
    sharded = load(make(tiny_teacher, sharded_dataset, tmp_path / "good"))
    (tmp_path / "bad").mkdir()
    described = []
    for number, part in enumerate(sharded.items.parts):
        items = np.array(part)
        if number == 1:
            items[3, 2] = 9999
        with open_lists(files_in(tmp_path / "bad"), number, SHARDS, len(items), 5) as writer:
            writer.store(0, items, np.zeros(items.shape))
        described.append(writer.described())
    key = CacheKey(**{name: sharded.manifest[name] for name in CacheKey.__dataclass_fields__})
    (tmp_path / "bad" / "manifest.json").write_text(json.dumps(cache_manifest(key, 5, described, sharded=True)))
    with pytest.raises(InputError, match="lists items from 1 to 9999, but the catalogue has 1 to"):
        train(**train_flags(dataset=sharded_dataset, run_dir=str(tmp_path / "run"), teacher=str(tmp_path / "bad")))
