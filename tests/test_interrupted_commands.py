"""Commands that are killed and run again, and that the search for half-written files finds them."""

import importlib
import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from serving.tiny_models import write_adding_model

from benchmarks.interrupted import (
    CASES,
    KINDS,
    Case,
    World,
    differences,
    interrupt,
    interrupted,
    may_come_later,
    run_contents,
    with_what_they_start_from,
)
from rd_tf import command_line
from rd_tf.teach import teach

# Each does something that a command must not, slowly.
COPY = """
import os, pathlib, shutil, sys, time
made, dataset = pathlib.Path("made"), pathlib.Path("dataset")

def copy(target):
    target.mkdir(exist_ok=True)
    for name in ("interactions.parquet", "users.txt", "items.txt", "manifest.json"):
        time.sleep(0.06)
        shutil.copy(made / name, target / name)
"""
IN_PLACE = COPY + "copy(dataset)"
REMOVES_FIRST = COPY + "dataset.exists() and os.rename(dataset, f'../{os.getpid()}'); copy(pathlib.Path('.tmp-1'));"
REMOVES_FIRST += "os.rename('.tmp-1', 'dataset')"
LEAVES_TEMPORARY = COPY + "aside = pathlib.Path(f'.tmp-{os.getpid()}'); copy(aside); shutil.rmtree(dataset, True);"
LEAVES_TEMPORARY += "os.rename(aside, dataset)"
REFUSES = COPY + "dataset.exists() and sys.exit('it exists'); os.symlink('made', 'dataset'); time.sleep(0.25)"
ANOTHER = COPY + "begun = os.path.exists('begun'); open('begun', 'w'); time.sleep(0.25); copy(pathlib.Path('.tmp-1'));"
ANOTHER += "begun and open('.tmp-1/more', 'w'); os.rename('.tmp-1', 'dataset')"


def test_prepare_is_killed_and_ends_as_if_it_had_not_been(tmp_path, capsys):
    output = tmp_path / "lines.jsonl"
    cases = ["prepare csv", "prepare --force"]
    interrupted(kills=4, publishes=1, cases=cases, checkpoint_minutes=0.0, seed=0, output=str(output))
    records = {record["case"]: record for record in map(json.loads, output.read_text().splitlines())}
    assert list(records) == cases
    for record in records.values():
        assert (record["kills"], record["failures"], record["ended_before"] >= 0) == (2, [], True)
    assert set(records["prepare --force"]["found_after_kill"]) <= {"dataset: old", "dataset: new"}
    assert set(records["prepare csv"]["found_after_kill"]) <= {"dataset: nothing", "dataset: new"}
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("command", "was_there", "sentence"),
    [
        (IN_PLACE, False, "dataset after a kill: .*manifest.json is in one only"),
        (REMOVES_FIRST, True, "dataset is gone after a kill"),
        (LEAVES_TEMPORARY, False, r"left over at the end: \.tmp-"),
        (REFUSES, False, "the command ended with 1: it exists"),
        (ANOTHER, False, "dataset at the end: more is in one only"),
    ],
    ids=["in place", "removes first", "leaves a temporary", "refuses", "ends with another"],
)
def test_a_careless_command_is_found(command, was_there, sentence, tiny_dataset, tmp_path):
    world = World(tmp_path, 0, 0.0)
    for name in ("made", "before"):
        shutil.copytree(tiny_dataset, tmp_path / name)
    starts_from = {"made": "made", **({"dataset": "before"} if was_there else {})}
    case = Case(("-c", command), starts_from, {"dataset": "dataset"})
    record = interrupt("careless", case, world, random.Random(0), 3)
    assert record["kills"] == 3
    assert any(re.search(sentence, failure) for failure in record["failures"]), record["failures"]


def rewrite(change):
    def alter(path):
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return alter


def change_seconds(path):
    table = pd.read_csv(path, dtype=str)
    table.assign(**{"seconds/epoch": "7"}).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("name", "alter", "found"),
    [
        ("manifest.json", rewrite(lambda it: it.update(seconds=7.0, peak_memory_bytes=1, manifest_sha256="0")), []),
        ("manifest.json", rewrite(lambda it: it.update(epoch=7)), ["manifest.json: epoch differs"]),
        ("history.csv", change_seconds, []),
        ("history.csv", lambda path: path.write_text(path.read_text() + "3\n"), ["history.csv differs"]),
        ("metrics.json", rewrite(lambda it: it["metrics"].update(map=1.0)), ["metrics.json differs"]),
        ("per_user.parquet", lambda path: path.unlink(), ["per_user.parquet is in one only"]),
        ("log.txt", lambda path: path.write_text("other"), []),
    ],
)
def test_what_may_differ_between_two_runs(name, alter, found, tiny_teacher, tmp_path):
    run = shutil.copytree(tiny_teacher, tmp_path / "run")
    untouched = run_contents(Path(tiny_teacher))
    assert differences(run_contents(run), untouched) == []
    alter(run / name)
    assert differences(run_contents(run), untouched) == found


def test_another_run_has_other_weights_and_scalars(tiny_teacher, tiny_fossil):
    found = differences(run_contents(Path(tiny_fossil)), run_contents(Path(tiny_teacher)))
    assert {"history.csv differs", "TensorBoard differs", "manifest.json: model differs"} <= {*found}


def test_a_run_is_finished_unfinished_or_half_written(tiny_teacher, tmp_path):
    run = shutil.copytree(tiny_teacher, tmp_path / "run")
    assert KINDS["run"](run)
    (run / "manifest.json").unlink()
    assert not KINDS["run"](run)
    weights = run / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(OSError, match="truncated"):
        KINDS["run"](run)


def test_a_cache_with_another_byte_is_found(tiny_teacher, tiny_dataset, tmp_path):
    flags = {"teacher": tiny_teacher, "dataset": tiny_dataset, "k": 5, "mask": "target", "block_size": 64}
    cache = Path(teach(**flags, cache=str(tmp_path / "cache"), force=False))
    other = shutil.copytree(cache, tmp_path / "other")
    items = np.load(other / "items.npy", mmap_mode="r+")
    items[0, 0] += 1
    items.flush()
    assert differences(KINDS["cache"](cache), KINDS["cache"](other)) == ["items.npy differs"]


def test_exports_are_run_and_compared(tmp_path):
    for name, added in (("one", 1), ("other", 2)):
        write_adding_model(tmp_path / name / "model" / "1", added, "x")
    contents = KINDS["exports"]
    different = differences(contents(tmp_path / "one"), contents(tmp_path / "other"))
    assert "model/variables/variables.data-00000-of-00001 differs" in different
    (tmp_path / "other" / "compose.yaml").touch()
    same = shutil.copytree(tmp_path / "other", tmp_path / "same", ignore=shutil.ignore_patterns("compose.yaml"))
    shutil.copytree(same / "model" / "1", same / "model" / "2")
    later = differences(contents(same), contents(tmp_path / "other"))
    assert later == ["compose.yaml is in one only", "model: versions differs"]
    assert all(map(may_come_later, later))
    assert not any(map(may_come_later, [*different, "compose.yaml differs"]))
    next((tmp_path / "one" / "model" / "1" / "variables").glob("*.data*")).unlink()
    with pytest.raises(Exception, match="variables"):
        contents(tmp_path / "one")
    shutil.rmtree(tmp_path / "one" / "model" / "1")
    assert not contents(tmp_path / "one")


def test_a_run_that_went_on_is_counted_however_much_it_printed(tmp_path):
    talks = (
        "import pathlib, time; print('resumed from here' if pathlib.Path('begun').exists() else 'new', flush=True); "
    )
    talks += "pathlib.Path('begun').touch(); print('.' * 5000, flush=True); time.sleep(0.3)"
    case = Case(("-c", talks), {}, {})
    record = interrupt("talks", case, World(tmp_path, 0, 0.0), random.Random(0), 4)
    assert record["failures"] == []
    assert record["resumed_runs"] > 0


@pytest.mark.parametrize("name", CASES)
def test_the_cases_are_commands_with_flags_that_they_have(name):
    _, module, *arguments = CASES[name].arguments
    command = getattr(importlib.import_module(module), module.rsplit(".", 1)[-1])
    assert command_line.parse(command, arguments)


def test_a_case_brings_what_it_starts_from():
    assert with_what_they_start_from(["teach"]) == ["prepare synthetic", "train teacher", "teach"]
    assert with_what_they_start_from(["prepare csv"]) == ["prepare csv"]
    assert with_what_they_start_from(["export --keep_versions"])[-3:] == [
        "train fossil",
        "export",
        "export --keep_versions",
    ]
