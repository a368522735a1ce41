"""The benchmarks end to end on a tiny world, and their messages."""

import json
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from benchmarks.scale import scale
from benchmarks.speed import reduced_training_set, some_users, speed
from rd_tf.flag_definitions import FLAGS
from rd_tf.storage import InputError

ROOT = Path(__file__).parents[2]
SPEED = {
    "reference": "",
    "reference_python": "",
    "reference_steps": 1,
    "reference_windows": 1,
    "reference_users": 1,
    "dataset": "",
    "optimizer": "lazy_adam",
    "batch_size": 64,
    "steps": 2,
    "steps_per_call": 2,
    "threads_per_operation": 0,
    "windows": 50,
    "block_size": 32,
    "epoch_seconds": 0.0,
    "repeats": 1,
    "seed": 0,
    "output": "",
}


@pytest.fixture(scope="module")
def data():
    from benchmarks.subjects import make_training_data, random_world

    return make_training_data(random_world(30, 60, 200, 0))


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a benchmark's module as Python's -m does, and returns its exit code and what it wrote."""

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
        # A benchmark redefines flags and the answer to SIGTERM, for its process.
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        with mock.patch.dict(FLAGS), pytest.raises(SystemExit) as ended:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
        return ended.value.code, *capsys.readouterr()

    return call


def cases_of(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[0]["benchmark"] == "machine"
    assert records[0]["peak_gflops"] > 0
    assert records[0]["bandwidth_gb"] > 0
    return {record["case"]: record for record in records[1:]}


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [("adam", ["teacher"]), ("lazy_adam", ["teacher", "distillation"])],
    ids=["adam", "lazy_adam"],
)
def test_steps_and_epochs_are_measured(tmp_path, tiny_dataset, optimizer, names):
    output = tmp_path / "lines.json"
    changed = {"dataset": tiny_dataset, "optimizer": optimizer, "output": str(output)}
    speed(cases=names, **{**SPEED, **changed})
    cases = cases_of(output)
    is_lazy = optimizer == "lazy_adam"
    assert {name for name in cases if "finish_epoch" not in name} == {*names, *(f"epoch_{name}" for name in names)}
    assert ("teacher finish_epoch" in cases) == is_lazy
    assert ("all_rows_floor" in cases["teacher"]) != is_lazy
    assert cases["epoch_teacher"]["steps"] == -(-cases["epoch_teacher"]["windows"] // 64)
    assert cases["teacher"]["floor"] > 0


def test_lists_of_both_lengths_are_measured(tmp_path):
    output = tmp_path / "lines.json"
    speed(cases=["k=10", "k=100"], **{**SPEED, "output": str(output)})
    cases = cases_of(output)
    assert set(cases) == {"k=10", "k=100"}
    assert cases["k=10"]["windows"] == 50
    assert cases["k=10"]["floor"] == cases["k=100"]["floor"] > 0


def test_a_catalogue_that_is_too_small_for_the_lists_is_refused(tiny_dataset):
    with pytest.raises(InputError, match="too few for the case k=100"):
        speed(cases=["k=100"], **{**SPEED, "dataset": tiny_dataset})


def test_an_evaluation_of_all_users_and_its_share_of_an_epoch_are_measured(tmp_path, tiny_dataset):
    output = tmp_path / "lines.json"
    changed = {"dataset": tiny_dataset, "block_size": 16, "epoch_seconds": 10.0, "output": str(output)}
    speed(cases=["d=50"], **{**SPEED, **changed})
    cases = cases_of(output)
    assert set(cases) == {"d=50 users", "d=50 all"}
    users = cases["d=50 all"]["users"]
    assert cases["d=50 users"]["median"] == pytest.approx(cases["d=50 all"]["median"] / users * 1000, rel=1e-2)
    assert cases["d=50 all"]["share_of_epoch"] == pytest.approx(cases["d=50 all"]["median"] / 10, rel=1e-2)


def test_scale_measures_time_and_memory_of_a_world_in_a_process_of_its_own(tmp_path):
    output = tmp_path / "lines.json"
    settings = {"dim": 4, "windows_per_user": 2, "steps": 1, "repeats": 1, "block_size": 64, "seed": 0}
    scale(sizes=["200"], optimizer="lazy_adam", cache_windows=70, **settings, output=str(output))
    cases = cases_of(output)
    timed = ("prepare", "step", "distillation", "finish_epoch", "top_k", "evaluate", "cache")
    for name in (*timed, "memory data", "memory model", "memory training", "memory peak step", "memory peak cache"):
        assert f"200 {name}" in cases
    # A single step is the difference of two times, which noise can make negative; then there is no ratio.
    step = cases["200 step"]
    assert step.get("ratio_to_smallest") == (1.0 if step["median"] > 0 else None)
    assert cases["200 memory model"]["structures_mb"]["weights"] > 0
    # 100 items of 4 bytes and 100 scores of 2 a window, two headers and the manifest.
    assert 70 * 600 < cases["200 cache"]["bytes"] < 70 * 600 + 2000


def test_the_authors_training_set_is_whole_users_numbered_from_0(data):
    lists = np.arange(2 * len(data.windows)).reshape(-1, 2)
    arrays = reduced_training_set(data, 40, lists, seed=0)
    assert len(arrays["users"]) == len(arrays["lists"]) == 40
    users = np.unique(arrays["users"])
    assert users[0] == 0
    assert len(arrays["seen_offsets"]) >= len(users) + 1
    for window in range(40):
        row = arrays["lists"][window, 0] // 2
        np.testing.assert_array_equal(arrays["sequences"][window], data.windows.sequences[row])
        user = arrays["users"][window]
        seen = arrays["seen"][arrays["seen_offsets"][user] : arrays["seen_offsets"][user + 1]]
        world = data.interactions
        mine = data.split.train & (world.users == data.windows.users[row])
        np.testing.assert_array_equal(seen, np.unique(world.items[mine]))


def test_the_authors_users_keep_their_own_items(data):
    arrays = some_users(data, 5, 4, seed=0)
    assert arrays["sequences"].shape == (4, 5)
    assert arrays["target_offsets"][-1] == len(arrays["targets"])
    for user in range(4):
        seen = arrays["seen"][arrays["seen_offsets"][user] : arrays["seen_offsets"][user + 1]]
        assert set(arrays["sequences"][user]) <= set(seen)


@pytest.mark.parametrize("name", ["speed", "scale", "beam", "serving", "soak"])
def test_help_lists_the_flags(name, call):
    code, shown, _ = call(name, "--help")
    assert code == 0
    assert f"Usage: python -m benchmarks.{name}" in shown
    assert "--output" in shown
    assert ("--optimizer  (default: lazy_adam)" in shown) == (name in ("speed", "scale"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["speed", "--stepps=3"], 2, "Unknown flag 'stepps'"),
        (["speed", "--steps=0"], 2, "flag --steps=0"),
        (["scale", "--optimizer=sgd"], 1, "--optimizer=sgd has no stated floor; it is one of adam, lazy_adam"),
        (["scale", "--sizes=few"], 1, "--sizes=few is no whole number from 200"),
        (["speed", "--cases=pupil"], 1, "--cases=pupil is no case of this benchmark"),
        (["speed", "--reference=/nowhere"], 1, "--reference=/nowhere holds no train_caser.py"),
        (["speed", "--output=/"], 1, "--output=/ is a directory; name a file"),
    ],
)
def test_bad_input_is_one_sentence(arguments, code, message, call):
    ended, shown, said = call(*arguments)
    assert ended == code
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert shown == ""


def test_a_benchmark_is_a_command():
    command = [sys.executable, "-m", "benchmarks.speed", "--steps=0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: flag --steps=0")
