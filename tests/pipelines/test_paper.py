"""python -m pipelines.paper: what it starts, what it keeps, and one small run of all of it."""

from pathlib import Path

import pytest

from pipelines.distill import distill_flags, stages
from pipelines.paper import __main__ as command
from pipelines.paper import efficiency as measuring
from pipelines.paper.__main__ import paper
from pipelines.paper.chains import SWEEPS, Cell
from pipelines.records import ROLES, keep_evidence
from rd_tf import command_line
from rd_tf.data.dataset import load_manifest
from rd_tf.storage import InputError, read_json, remove, write_json

CONFIG = [
    "--export_name=tiny",
    "--max_k=5",
    "--epochs=2",
    "--teacher_dim=8",
    "--student_dim=4",
    "--k=5",
    "--batch_size=64",
    "--discrepancy_start_epoch=1",
    "--teacher=large",
    "--ranking_loss=pointwise",
    "--distillation_loss=weighted_pointwise",
    "--mask=target",
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

    monkeypatch.setattr(command, "run_chains", record)
    return chains


@pytest.fixture
def make_evidence(flags, make_cell, tiny_dataset):
    """Fills results with the evidence of some seeds, trained with the flags of the cell or others."""

    def make(seeds, directory="", fingerprint="", **changed):
        fingerprint = fingerprint or load_manifest(tiny_dataset)["fingerprint"]
        values = distill_flags(Cell("tiny", "caser").arguments(flags["configs_dir"], flags["datasets_dir"]))
        cell = Path(flags["results"]) / directory / "tiny" / "caser"
        for seed in seeds:
            own = stages(dict.fromkeys(ROLES, Path()), seed, {**values, **changed})
            make_cell(cell, [seed], stages=own, fingerprint=fingerprint)
        return cell

    return make


@pytest.fixture
def make_runs(flags, make_run):
    """Makes the run directories of tiny/caser with seed 0, as if they had been trained."""

    def make(number=0):
        root = Path(flags["run_dir"]) / "tiny" / "caser" / "seed-0" / "seed-0"
        return {role: make_run(root / role, role, number) for role in ("teacher", "distilled")}

    return make


@pytest.fixture
def measured(monkeypatch):
    """Cells that would have been measured; none is."""
    directories = []
    write = lambda directory, *_: directories.append(directory.name)  # noqa: E731
    monkeypatch.setattr(measuring, "write_efficiency", write)
    return directories


def test_one_small_cell_from_training_to_tables(flags, capsys):
    paper(**flags)
    results = Path(flags["results"])
    cell = results / "tiny" / "caser"
    efficiency = read_json(cell / "efficiency.json")
    measured = efficiency["roles"]
    assert efficiency["device"] == "CPU:0"
    manifest = read_json(cell / "seed-0" / "distilled" / "manifest.json")
    assert measured["distilled"]["fingerprint"] == manifest["model"]["fingerprint"]
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


def test_only_what_is_missing_is_started_seed_by_seed(flags, started, make_evidence):
    make_evidence([1])
    paper(**{**flags, "seeds": ["0", "1", "2"]})
    assert [chain.title for chain in started] == ["tiny/caser seed 0", "tiny/caser seed 2"]
    assert "--seeds=2" in started[1].arguments
    assert len({argument for chain in started for argument in chain.arguments if "--run_dir" in argument}) == 2


def test_a_lost_file_brings_the_chain_back(flags, started, make_evidence):
    cell = make_evidence([0])
    (cell / "seed-0" / "student" / "per_user.parquet").unlink()
    paper(**flags)
    assert [chain.title for chain in started] == ["tiny/caser seed 0"]


def test_notrain_shows_what_is_there_and_what_is_missing(flags, started, make_evidence):
    make_evidence([0])
    cells = {"cells": ["tiny/caser", "tiny/fossil"], "datasets_dir": "nowhere", "configs_dir": "nowhere"}
    paper(**{**flags, **cells, "train": False})
    assert not started
    assert "| Fossil: no results yet |" in (Path(flags["results"]) / "tables.md").read_text()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 3}, r"seed-1/teacher was trained with --epochs=3, but --epochs=2 is wanted now; delete that"),
        ({"cutoffs": ["3"]}, r"was trained with --cutoffs=3, but --cutoffs=3,5,10,20 is wanted now"),
        ({"student_dim": 5}, r"seed-1/student was trained with --dim=5, but --dim=4 is wanted now"),
        ({"split": "validation"}, r"seed-1/teacher is of the split validation, not test; name another --results"),
        ({"fingerprint": "a" * 64}, r"was trained on the --dataset aaaaaaaaaaaaaaaa, but .*tiny is \w{16} now; delete"),
    ],
)
def test_evidence_of_other_settings_or_data_is_refused_before_anything_is_started(
    flags, started, make_evidence, changed, message
):
    make_evidence([1], **changed)
    with pytest.raises(InputError, match=message):
        paper(**{**flags, "seeds": ["0", "1"]})
    assert not started


def test_evidence_of_other_flags_without_a_part_in_the_result_is_kept(flags, started, make_evidence):
    make_evidence([0], history_exponent=0.9, steps_per_call=7)
    paper(**flags)
    assert not started


def test_a_sweeps_evidence_of_other_settings_is_refused(flags, started, make_evidence):
    make_evidence([0])
    cell = make_evidence([0], directory="old", epochs=3, split="validation")
    sweeps = Path(flags["results"]) / "sweeps" / "tiny" / "caser"
    (sweeps / "default").mkdir(parents=True)
    (cell / "seed-0").rename(sweeps / "default" / "seed-0")
    with pytest.raises(
        InputError, match=r"sweeps/tiny/caser/default/seed-0/\w+ .*--epochs=3, but --epochs=2 is wanted"
    ):
        paper(**{**flags, "sweeps": ["k"]})
    assert not started


@pytest.mark.parametrize(("kept", "begins"), [(None, "tiny/caser k=2"), (0, "tiny/caser k=2"), (1, "tiny/caser val")])
def test_a_sweeps_points_take_the_teacher_of_the_evidence_only(flags, started, make_run, make_evidence, kept, begins):
    make_evidence([0])
    values = distill_flags(Cell("tiny", "caser").arguments(flags["configs_dir"], flags["datasets_dir"]))
    own = stages(dict.fromkeys(ROLES, Path()), 0, {**values, "split": "validation"})
    runs = Path(flags["run_dir"]) / "sweeps" / "tiny" / "caser" / "seed-0" / "seed-0"
    run = make_run(runs / "teacher", "teacher", 0, **own["teacher"])
    fingerprint = load_manifest(Path(flags["datasets_dir"]) / "tiny")["fingerprint"]
    for role in ROLES if kept is not None else ():
        run = make_run(runs / f"evidence {role}", role, kept, fingerprint=fingerprint, **own[role])
        target = Path(flags["results"]) / "sweeps" / "tiny" / "caser" / "default" / "seed-0" / role
        keep_evidence(run, target, per_user=False)
    paper(**{**flags, "sweeps": ["k"], "efficiency": False})
    # Without any evidence the default chain comes first, but it keeps the teacher that is there.
    started = started[1:] if kept is None else started
    assert started[0].title.startswith(begins)


def test_a_measured_efficiency_is_kept(flags, make_evidence, make_runs, efficiency, measured):
    cell = make_evidence([0])
    make_runs()
    write_json(cell / "efficiency.json", efficiency)
    paper(**flags)
    assert read_json(cell / "efficiency.json") == efficiency
    assert not measured


def test_the_efficiency_of_other_models_is_measured_again(flags, make_evidence, make_runs, efficiency, measured):
    cell = make_evidence([0])
    make_runs()
    roles = {role: {**one, "fingerprint": "another"} for role, one in efficiency["roles"].items()}
    write_json(cell / "efficiency.json", {**efficiency, "roles": roles})
    paper(**flags)
    assert measured == ["caser"]


def test_noefficiency_leaves_it_out(flags, make_evidence, make_runs, measured):
    make_evidence([0])
    make_runs()
    paper(**{**flags, "efficiency": False})
    assert not measured
    paper(**flags)
    assert measured == ["caser"]


def test_what_is_not_there_to_measure_with_is_said_and_no_failure(flags, make_evidence, make_runs, measured, capsys):
    make_evidence([0])
    paper(**flags)
    assert (
        f"tiny/caser: no runs of its evidence in {flags['run_dir']}, efficiency not measured" in capsys.readouterr().out
    )
    runs = make_runs(number=1)
    paper(**flags)
    assert "tiny/caser: no runs of its evidence in" in capsys.readouterr().out
    for run in runs.values():
        remove(run)
    make_runs()
    paper(**{**flags, "datasets_dir": "nowhere"})
    assert "tiny/caser: no dataset nowhere/tiny, efficiency not measured" in capsys.readouterr().out
    assert not measured


def test_a_failed_measurement_stops_neither_tables_nor_sweeps(flags, started, make_evidence, make_runs):
    make_evidence([0])
    # They were trained on another dataset than the one that is there.
    make_runs()
    with pytest.raises(
        InputError, match=r"^tiny/caser: the efficiency could not be measured \(--run_dir=.* was trained"
    ):
        paper(**{**flags, "sweeps": ["k"]})
    assert started
    assert (Path(flags["results"]) / "tables.md").is_file()


def test_a_failed_training_is_named_after_the_tables_are_written(flags, monkeypatch):
    monkeypatch.setattr(command, "run_chains", lambda *_: ["tiny/caser seed 0 ended with 1 (see x.log)"])
    with pytest.raises(InputError, match=r"^tiny/caser seed 0 ended with 1 \(see x\.log\); mend it and run the same"):
        paper(**flags)
    assert (Path(flags["results"]) / "tables.md").is_file()


def test_sweeps_change_one_flag_and_share_a_teacher(flags, started, make_evidence):
    make_evidence([0])
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
        ({"sweeps": ["k", "k"]}, "--sweeps=k,k names a flag twice; name each once"),
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


def test_a_flagfile_with_a_teacher_is_refused(flags, started):
    config = Path(flags["configs_dir"]) / "tiny" / "caser.cfg"
    config.write_text("\n".join([*CONFIG, "--teacher=runs/mine"]))
    with pytest.raises(
        InputError, match=r"caser.cfg has --teacher=runs/mine; write --teacher=large, since a cell trains its"
    ):
        paper(**flags)
    assert not started


def test_the_help_is_true_of_many_runs_and_seeds():
    text = " ".join(command_line.help_text(paper, "python -m pipelines.paper").split())
    assert "Pipelines: the parent of the run directories of all their runs." in text
    assert "Seeds to run, one after another (pipelines.paper: --jobs at a time)" in text
    assert "--[no]efficiency (default: true)" in text
