"""python -m pipelines.paper: what it starts, what it keeps, and one small run of all of it."""

from pathlib import Path

import pytest

import pipelines.paper_training
from pipelines.paper import paper
from pipelines.sweeps import SWEEPS
from rd_tf import command_line, storage
from rd_tf.errors import InputError

CONFIG = [
    "--export_name=tiny",
    "--export_k=5",
    "--epochs=2",
    "--teacher_dim=8",
    "--student_dim=4",
    "--k=5",
    "--batch_size=64",
    "--discrepancy_start_epoch=1",
]


@pytest.fixture
def flags(tmp_path, tiny_dataset):
    """Flags of a paper with one cell, tiny/caser, of the tiny dataset."""
    config = tmp_path / "configs" / "tiny" / "caser.cfg"
    config.parent.mkdir(parents=True)
    config.write_text("\n".join(CONFIG))
    places = {"configs_dir": "configs", "run_dir": "runs", "results": "results"}
    return {
        **command_line.default_flags(paper),
        **{name: str(tmp_path / folder) for name, folder in places.items()},
        "datasets_dir": str(Path(tiny_dataset).parent),
        "cells": ["tiny/caser"],
        "sweep_cell": "tiny/caser",
    }


@pytest.fixture
def started(monkeypatch):
    """Chains that would have been started; none is."""
    chains = []

    def record(missing, at_once, say):
        chains.extend(missing)
        return []

    monkeypatch.setattr(pipelines.paper_training, "run_chains", record)
    return chains


def test_one_small_cell_from_training_to_tables(flags, capsys):
    paper(**flags)
    results = Path(flags["results"])
    cell = results / "tiny" / "caser"
    measured = storage.read_json(cell / "efficiency.json")["roles"]
    assert measured["teacher"]["parameters"] > measured["distilled"]["parameters"]
    assert min(measured["distilled"]["seconds"], measured["distilled"]["savedmodel_bytes"]) > 0
    assert "| Caser teacher, seed 0 | 8 | 5," in (results / "tables.md").read_text()
    assert (Path(flags["run_dir"]) / "tiny" / "caser" / "seed-0.log").stat().st_size > 0
    assert "tiny/caser seed 0: finished in" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    # Neither the dataset nor the runs are needed any more.
    paper(**{**flags, "datasets_dir": "nowhere", "configs_dir": "nowhere", "run_dir": ""})
    assert "1 of 1 trainings of the tables are in" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_only_what_is_missing_is_started_seed_by_seed(flags, started, make_cell):
    make_cell(Path(flags["results"]) / "tiny" / "caser", [1])
    paper(**{**flags, "seeds": ["0", "1", "2"]})
    assert [chain.title for chain in started] == ["tiny/caser seed 0", "tiny/caser seed 2"]
    assert "--seeds=2" in started[1].arguments
    assert len({argument for chain in started for argument in chain.arguments if "--run_dir" in argument}) == 2


def test_a_lost_file_brings_the_chain_back(flags, started, make_cell):
    cell = Path(flags["results"]) / "tiny" / "caser"
    make_cell(cell, [0])
    (cell / "seed-0" / "student" / "per_user.parquet").unlink()
    paper(**flags)
    assert [chain.title for chain in started] == ["tiny/caser seed 0"]


def test_notrain_shows_what_is_there_and_what_is_missing(flags, started, make_cell):
    make_cell(Path(flags["results"]) / "tiny" / "caser", [0])
    cells = {"cells": ["tiny/caser", "tiny/fossil"], "datasets_dir": "nowhere", "configs_dir": "nowhere"}
    paper(**{**flags, **cells, "train": False})
    assert not started
    assert "| Fossil: no results yet |" in (Path(flags["results"]) / "tables.md").read_text()


def test_a_measured_efficiency_is_kept(flags, make_cell, efficiency):
    cell = Path(flags["results"]) / "tiny" / "caser"
    make_cell(cell, [0])
    storage.write_json(cell / "efficiency.json", efficiency)
    paper(**flags)
    assert storage.read_json(cell / "efficiency.json") == efficiency


def test_a_failed_training_is_named_after_the_tables_are_written(flags, monkeypatch):
    monkeypatch.setattr(
        pipelines.paper_training, "run_chains", lambda *_: ["tiny/caser seed 0 ended with 1 (see x.log)"]
    )
    with pytest.raises(InputError, match=r"^tiny/caser seed 0 ended with 1 \(see x\.log\); mend it and run the same"):
        paper(**flags)
    assert (Path(flags["results"]) / "tables.md").is_file()


def test_sweeps_change_one_flag_and_share_a_teacher(flags, started, make_cell):
    make_cell(Path(flags["results"]) / "tiny" / "caser", [0])
    paper(**{**flags, "sweeps": ["k", "student_dim"]})
    first, *points = started
    assert first.module == "pipelines.distill"
    assert "--split=validation" in first.arguments
    # The cell's own k = 5 is among the values, its student_dim = 4 is not; a student alone beside every dimension.
    assert len(points) == len(SWEEPS["k"]) - 1 + 2 * len(SWEEPS["student_dim"])
    teacher = next(run for run in first.evidence if run.name == "teacher")
    distilled = [chain for chain in points if f"--teacher={teacher}" in chain.arguments]
    assert len(distilled) == len(points) - len(SWEEPS["student_dim"])
    k_2 = points[0]
    assert {"--k=2", "--dim=4", "--split=validation", "--model=caser"} <= set(k_2.arguments)
    (target,) = k_2.evidence.values()
    assert target == Path(flags["results"]) / "sweeps" / "tiny" / "caser" / "k=2" / "seed-0" / "distilled"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cells": ["caser"]}, "--cells: 'caser' is no cell; write <dataset>/<model>"),
        ({"cells": ["a/b", "a/b"]}, "names a cell twice"),
        ({"cells": ["tiny/other"]}, "other.cfg"),
        ({"datasets_dir": "nowhere"}, "nowhere/tiny"),
        ({"sweeps": ["epochs"]}, "--sweeps: 'epochs' is none of k, position_temperature"),
        ({"run_dir": ""}, "--run_dir is empty"),
        ({"seeds": ["x"]}, "seeds are different whole numbers"),
    ],
)
def test_a_mistake_is_said_before_anything_is_started(flags, started, changed, message):
    with pytest.raises(InputError, match=message):
        paper(**{**flags, **changed})
    assert not started


def test_a_flagfile_without_the_tables_cutoffs_is_refused(flags, started):
    config = Path(flags["configs_dir"]) / "tiny" / "caser.cfg"
    config.write_text("\n".join([*CONFIG, "--cutoffs=3,20"]))
    with pytest.raises(InputError, match=r"caser.cfg has --cutoffs=3,20; the tables need 3,5,10 too"):
        paper(**flags)


def test_a_flagfile_with_an_unknown_flag_is_refused(flags, started):
    config = Path(flags["configs_dir"]) / "tiny" / "caser.cfg"
    config.write_text("--no_such_flag=1\n")
    with pytest.raises(InputError, match=r"caser.cfg: .*no_such_flag"):
        paper(**flags)
