"""The Beam job writes what rd_tf.teach writes, byte for byte, here and on a remote file system."""

import json
import sys
from pathlib import Path

import pytest
from tiny_shards import SHARDS, cut_power_in_the_second_shard

from pipelines.beam.files import run_pipeline
from pipelines.beam.teach import beam_teach
from rd_tf import command_line, plugins
from rd_tf.data.dataset import load_dataset, save_dataset
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.train import train

PLUGIN = """
import rd_tf

@rd_tf.register_ranker("mine")
class Mine(rd_tf.models.Caser):
    pass
"""
LISTS = {"k": 5, "mask": "target", "block_size": 32, "force": False}


@pytest.fixture(scope="module")
def expected(tmp_path_factory, tiny_teacher, sharded_dataset):
    """The files that rd_tf.teach writes."""
    cache = tmp_path_factory.mktemp("expected") / "cache"
    teach(teacher=tiny_teacher, dataset=sharded_dataset, cache=str(cache), **LISTS)
    return contents(cache)


@pytest.fixture
def remote():
    """The name of a path on a remote file system."""
    pytest.importorskip("apache_beam")
    import fake_remote

    return lambda path: fake_remote.PREFIX + str(path)


def run(teacher, dataset, cache, runner="DirectRunner", beam_options=(), **changed):
    places = {"teacher": str(teacher), "dataset": str(dataset), "cache": str(cache)}
    return beam_teach(**places, **{**LISTS, **changed}, runner=runner, beam_options=list(beam_options))


def contents(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


@pytest.mark.parametrize(
    ("model", "mask", "options"),
    [
        ("caser", "target", []),
        ("fossil", "seen", ["direct_running_mode=multi_threading", "direct_num_workers=2"]),
    ],
)
def test_the_files_are_those_of_the_local_command(request, sharded_dataset, tmp_path, model, mask, options):
    teacher = request.getfixturevalue({"caser": "tiny_teacher", "fossil": "tiny_fossil"}[model])
    places = {"teacher": teacher, "dataset": sharded_dataset}
    teach(**places, cache=str(tmp_path / "local"), **{**LISTS, "mask": mask})
    run(**places, cache=tmp_path / "beam", mask=mask, beam_options=options)
    assert len(contents(tmp_path / "beam")) == 2 * SHARDS + 1
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beam", "local"]


def test_a_dataset_that_is_not_sharded_gives_a_cache_that_is_not(tiny_teacher, tiny_dataset, tmp_path):
    teach(teacher=tiny_teacher, dataset=tiny_dataset, cache=str(tmp_path / "local"), **LISTS)
    run(tiny_teacher, tiny_dataset, tmp_path / "beam")
    assert contents(tmp_path / "beam").keys() == {"items.npy", "scores.npy", "manifest.json"}
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


def test_workers_import_plug_ins(monkeypatch, sharded_dataset, tmp_path, train_flags):
    (tmp_path / "beam_rankers.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def forget():
        plugins.RANKERS.pop("mine", None)
        sys.modules.pop("beam_rankers", None)

    def run_elsewhere(*arguments):
        forget()
        run_pipeline(*arguments)

    monkeypatch.setattr("pipelines.beam.teach.run_pipeline", run_elsewhere)
    given = {"import_module": ["beam_rankers"]}
    places = {"teacher": str(tmp_path / "run"), "dataset": sharded_dataset}
    try:
        train(**train_flags(**given, model="mine", dataset=sharded_dataset, run_dir=places["teacher"], epochs=1))
        teach(**places, **given, cache=str(tmp_path / "local"), **LISTS)
        run(**places, **given, cache=tmp_path / "beam")
    finally:
        forget()
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


def test_everything_may_be_remote(tiny_teacher, sharded_dataset, tmp_path, remote, expected, capsys):
    places = [remote(path) for path in (tiny_teacher, sharded_dataset, tmp_path / "cache")]
    run(*places)
    assert contents(tmp_path / "cache") == expected
    run(*places)
    assert f"teacher cache kept: {places[2]}" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"fake://.*cache has lists of 5 items, but --k=6 is needed.* --force"):
        run(*places, k=6)
    run(*places, k=6, force=True)
    assert json.loads(contents(tmp_path / "cache")["manifest.json"])["k"] == 6


def test_a_remote_cache_of_a_killed_job_is_none_and_the_next_job_finishes_it(
    monkeypatch, tiny_teacher, sharded_dataset, tmp_path, remote, expected
):
    places = tiny_teacher, sharded_dataset, remote(tmp_path / "cache")
    with monkeypatch.context() as patch:
        cut_power_in_the_second_shard(patch)
        with pytest.raises(RuntimeError, match="power cut"):
            run(*places)
    left = contents(tmp_path / "cache")
    assert len(left) == 2
    assert left.items() < expected.items()
    # What a worker leaves that had no time to tidy up.
    (tmp_path / "cache" / ".tmp-0123-items-00001-of-00003.npy").write_bytes(b"half")
    run(*places)
    assert contents(tmp_path / "cache") == expected


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["manifest.json", "thesis.tex"])
def test_a_directory_of_something_else_is_never_replaced(tiny_teacher, sharded_dataset, tmp_path, remote, force, name):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("{}")
    for place in (tmp_path / "other", remote(tmp_path / "other")):
        with pytest.raises(InputError, match="exists and is no teacher cache; name another directory"):
            run(tiny_teacher, sharded_dataset, place, force=force)
    assert contents(tmp_path / "other") == {name: b"{}"}


def test_a_local_cache_is_checked_before_it_is_kept(tiny_teacher, sharded_dataset, tmp_path, expected, capsys):
    run(tiny_teacher, sharded_dataset, tmp_path / "cache")
    run(tiny_teacher, sharded_dataset, tmp_path / "cache")
    assert "teacher cache kept" in capsys.readouterr().out
    (tmp_path / "cache" / "items-00001-of-00003.npy").unlink()
    with pytest.raises(InputError, match=r"items-00001-of-00003\.npy.* --force"):
        run(tiny_teacher, sharded_dataset, tmp_path / "cache")
    run(tiny_teacher, sharded_dataset, tmp_path / "cache", force=True)
    assert contents(tmp_path / "cache") == expected


@pytest.mark.parametrize("options", [[], ["direct_running_mode=multi_threading", "direct_num_workers=2"]])
def test_what_a_worker_refuses_is_one_sentence_and_leaves_nothing(tiny_teacher, sharded_dataset, tmp_path, options):
    with pytest.raises(InputError) as raised:
        run(tiny_teacher, sharded_dataset, tmp_path / "cache", k=70, mask="seen", beam_options=options)
    sentence = str(raised.value)
    assert sentence.startswith("--k=70 is larger than the catalogue of ")
    assert sentence.endswith(" or less")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_refused_by_name(tiny_teacher, tiny_dataset, tmp_path, remote):
    save_dataset(load_dataset(tiny_dataset), tmp_path / "d", {}, shards=SHARDS)
    path = tmp_path / "d" / "interactions-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"interactions-00001-of-00003\.parquet cannot be read"):
        run(tiny_teacher, tmp_path / "d", tmp_path / "cache")
    path.unlink()
    with pytest.raises(InputError, match=r"fake:///.*interactions-00001-of-00003\.parquet cannot be read"):
        run(tiny_teacher, remote(tmp_path / "d"), tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": ""}, "--teacher is empty; name a run directory"),
        ({"dataset": ""}, "--dataset is empty; name a dataset directory"),
        ({"teacher": "nowhere"}, "--teacher=nowhere is not a directory"),
        ({"k": 99}, "--k=99 is larger than the catalogue"),
        ({"runner": "Runner"}, "--runner=Runner cannot be used"),
        ({"beam_options": ["direct_num_workers=two"]}, "direct_num_workers: invalid int value: 'two'"),
        ({"beam_options": ["direct_num_wrkers=2"]}, "DirectRunner has no option direct_num_wrkers"),
        ({"runner": "DataflowRunner", "beam_options": ["region=europe-west1"]}, "Missing required option: project"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tiny_teacher, sharded_dataset, tmp_path, changed, message):
    places = {"teacher": tiny_teacher, "dataset": sharded_dataset, "cache": tmp_path / "cache"}
    with pytest.raises(InputError, match=message):
        run(**{**places, **changed})
    assert list(tmp_path.iterdir()) == []


def test_another_dataset_is_refused(tiny_teacher, tiny_dataset, tmp_path):
    whole = load_dataset(tiny_dataset)
    whole.item_ids[0] += "?"
    save_dataset(whole, tmp_path / "other", {}, shards=2)
    with pytest.raises(InputError, match=r"was trained on the dataset \w+, but --dataset=.*other is \w+"):
        run(tiny_teacher, tmp_path / "other", tmp_path / "cache")


def test_without_beam_it_says_so(monkeypatch, tiny_teacher, sharded_dataset, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    arguments = [f"--teacher={tiny_teacher}", f"--dataset={sharded_dataset}", f"--cache={tmp_path / 'cache'}"]
    with pytest.raises(SystemExit) as ended:
        command_line.run(beam_teach, arguments)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said == "error: Apache Beam is not installed; pip install -r requirements-beam.txt\n"
