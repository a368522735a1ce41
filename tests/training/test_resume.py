"""A run that is stopped anywhere ends where an undisturbed one ends, bit for bit."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import tensorflow as tf

from rd_tf import command_line
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.storage import InputError, directory_lock, file_sha256, json_sha256, write_json
from rd_tf.train import train
from rd_tf.training import loop
from rd_tf.training.checkpoints import Checkpointer, RunState, list_checkpoints
from rd_tf.training.distiller import RankingDistiller


class KilledError(Exception):
    """Stands for SIGKILL: nothing after it runs."""


def fingerprint(run):
    return json.loads((Path(run) / "manifest.json").read_text())["model"]["fingerprint"]


def without_times(run):
    rows = (Path(run) / "history.csv").read_text().splitlines()
    names = rows[0].split(",")
    timed = [place for place, name in enumerate(names) if name.startswith("seconds/")]
    return [[cell for place, cell in enumerate(row.split(",")) if place not in timed] for row in rows]


def check_same(run, undisturbed):
    assert fingerprint(run) == fingerprint(undisturbed)
    assert without_times(run) == without_times(undisturbed)
    for name in ("metrics.json", "per_user.parquet"):
        assert (Path(run) / name).read_bytes() == (Path(undisturbed) / name).read_bytes()
    assert not (Path(run) / "checkpoint").exists()


@contextlib.contextmanager
def dying_after(calls):
    """Makes training save after every call of its graph, and die after so many calls; 0: never."""
    save, count = Checkpointer.save, 0

    def save_and_die(self, position):
        nonlocal count
        count += 1
        # Killed before the checkpoint of this call: what was done since the one before is done again.
        if count == calls:
            raise KilledError
        save(self, position)

    dies = pytest.raises(KilledError) if calls else contextlib.nullcontext()
    # However slow the machine: all calls but the first have as many steps as they may.
    as_many = mock.patch.object(loop, "_SECONDS_A_CALL", 1e9)
    with mock.patch.object(Checkpointer, "save_if_due", save_and_die), as_many, dies:
        yield


_IN_HALF_PRECISION = {"optimizer": "adam", "dropout": 0.3, "user_dropout": 0.1, "dtype_policy": "mixed_float16"}
_BEST_OF_VALIDATION = {"split": "validation", "validate_every": 1, "epochs": 4, "learning_rate": 0.1}
RUNS = {
    "distilled": {"epochs": 3},
    "fossil with Adam in half precision": {"model": "fossil", **_IN_HALF_PRECISION},
    "best of validation of sasrec": {
        "model": "sasrec",
        "dropout": 0.3,
        "ranking_loss": "sampled_softmax",
        **_BEST_OF_VALIDATION,
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_as_an_undisturbed_one(name, tiny_dataset, tiny_teacher, train_flags, tmp_path):
    teacher = tiny_teacher if name == "distilled" else ""
    flags = train_flags(dataset=tiny_dataset, teacher=teacher, steps_per_call=4, batch_size=64, **RUNS[name])
    train(**{**flags, "run_dir": str(tmp_path / "undisturbed")})
    killed = {**flags, "run_dir": str(tmp_path / "killed")}
    # An epoch is 9 steps, so 4 calls, of which the first has 1 step: within an epoch, and right after a restart.
    for calls in (5, 2) if name == "distilled" else (4,):
        with dying_after(calls):
            train(**killed)
    train(**killed)
    check_same(tmp_path / "killed", tmp_path / "undisturbed")
    log = (tmp_path / "killed/log.txt").read_text()
    assert log.count("resumed from") == (2 if name == "distilled" else 1)


def test_a_process_that_is_killed_or_stopped_goes_on(tiny_dataset, train_flags, tmp_path):
    flags = train_flags(dataset=tiny_dataset, epochs=10, steps_per_call=1, checkpoint_minutes=0.001)
    train(**{**flags, "run_dir": str(tmp_path / "undisturbed")})
    run = tmp_path / "run"
    lines = command_line.flag_lines({**flags, "run_dir": str(run)}).splitlines()
    root, temporary = Path(__file__).parents[2], tmp_path / "temporary"
    temporary.mkdir()
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-m", "rd_tf.train", *lines],
            env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seen = len(list_checkpoints(run / "checkpoint")) and int(list_checkpoints(run / "checkpoint")[0].name)
        while process.poll() is None:
            found = list_checkpoints(run / "checkpoint")
            if found and int(found[0].name) > seen + 2:
                break
            time.sleep(0.01)
        process.send_signal(number)
        written, _ = process.communicate(timeout=60)
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), written
        # Nothing of AutoGraph's, which a killed process does not remove.
        assert list(temporary.iterdir()) == []
    assert "the same command goes on from there" in written
    train(**{**flags, "run_dir": str(run)})
    check_same(run, tmp_path / "undisturbed")


@pytest.fixture(scope="module")
def flags(tiny_dataset, train_flags):
    return train_flags(dataset=tiny_dataset, steps_per_call=4, batch_size=64, epochs=2)


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory):
    """A run of those flags that nothing stopped."""
    path = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(**{**flags, "run_dir": str(path)})
    return path


@pytest.fixture(scope="module")
def killed(flags, tmp_path_factory):
    """A run of those flags that died after its third checkpoint."""
    path = tmp_path_factory.mktemp("runs") / "killed"
    with dying_after(4):
        train(**{**flags, "run_dir": str(path)})
    return path


@pytest.fixture
def unfinished(flags, killed, tmp_path):
    """Flags of that run, in a directory of the test's own."""
    return {**flags, "run_dir": str(shutil.copytree(killed, tmp_path / "run"))}


def test_a_damaged_checkpoint_falls_back_to_the_one_before(unfinished, undisturbed, tmp_path, capsys):
    newest, before = list_checkpoints(tmp_path / "run/checkpoint")
    array = sorted(newest.glob("*.npy"))[2]
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    capsys.readouterr()
    train(**unfinished)
    said = capsys.readouterr().out
    assert f"checkpoint {newest} is damaged" in said
    assert f"resumed from {before}" in said
    check_same(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(
    "damages",
    [("no manifest", "other numbers"), ("another version's arrays", "no progress"), ("no position", "a huge array")],
)
def test_where_no_checkpoint_can_be_read_the_run_begins_anew(damages, unfinished, undisturbed, tmp_path, capsys):
    for path, damage in zip(list_checkpoints(tmp_path / "run/checkpoint"), damages, strict=True):
        manifest = path / "manifest.json"
        described = json.loads(manifest.read_text())
        if damage == "no manifest":
            manifest.unlink()
            continue
        if damage == "other numbers":
            described["progress"]["position"]["step"] += 1
        else:
            if damage == "no progress":
                described["progress"] = {}
            elif damage == "no position":
                described["progress"]["position"] = {"epoch": 1, "step": 0, "total": ["x"], "seconds": 0.0}
            elif damage == "a huge array":
                array = next(iter(described["arrays"].values()))
                content = (path / array["file"]).read_bytes()
                (path / array["file"]).write_bytes(content.replace(b"'shape': (", b"'shape': (9" + b"0" * 30, 1))
                array["sha256"] = file_sha256(path / array["file"])
            else:
                described["arrays"].pop(next(iter(described["arrays"])))
            described.pop("sha256")
            described["sha256"] = json_sha256(described)
        write_json(manifest, described)
    train(**unfinished)
    assert capsys.readouterr().out.count("falling back to the one before") == 2
    check_same(tmp_path / "run", undisturbed)


def test_an_unfinished_run_with_other_flags_is_refused_until_forced(unfinished, tmp_path):
    other = {**unfinished, "learning_rate": 0.5}
    with pytest.raises(InputError, match=r"holds an unfinished run with --learning_rate=0\.01, not 0\.5"):
        train(**other)
    assert list_checkpoints(tmp_path / "run/checkpoint")
    train(**{**other, "force": True})
    assert not (tmp_path / "run/checkpoint").exists()


def test_a_forced_run_goes_on_too_and_the_old_one_stays_until_then(flags, undisturbed, tmp_path):
    before = fingerprint(undisturbed)
    run = shutil.copytree(undisturbed, tmp_path / "run")
    forced = {**flags, "run_dir": str(run), "force": True, "learning_rate": 0.5}
    with dying_after(3):
        train(**forced)
    assert fingerprint(run) == before
    train(**forced)
    assert "resumed from" in (run / "log.txt").read_text()
    assert fingerprint(run) != before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_good_checkpoint(unfinished, tmp_path, monkeypatch):
    before = [path.name for path in list_checkpoints(tmp_path / "run/checkpoint")]
    call = RankingDistiller.step

    def breaks_in_step_13(self, batch, with_student_rank):
        is_13 = tf.equal(tf.cast(self.optimizer.iterations, tf.int32), 12)
        return call(self, batch, with_student_rank) + tf.where(is_13, float("nan"), 0.0)

    monkeypatch.setattr(RankingDistiller, "step", breaks_in_step_13)
    refused = pytest.raises(InputError, match=r"the loss is not finite in epoch 2, step 4 of 9; use a smaller --learn")
    with dying_after(0), refused:
        train(**unfinished)
    after = [path.name for path in list_checkpoints(tmp_path / "run/checkpoint")]
    assert after == ["000000000009", "000000000008"]
    assert before == ["000000000008", "000000000004"]


def test_weights_that_are_not_finite_are_no_checkpoint(unfinished, tmp_path, monkeypatch):
    newest = list_checkpoints(tmp_path / "run/checkpoint")[0]
    arrays = RunState.arrays

    def one_is_nan(self):
        for name, array in arrays(self):
            yield name, array * float("nan") if array.dtype.kind == "f" else array

    monkeypatch.setattr(RunState, "arrays", one_is_nan)
    refused = pytest.raises(InputError, match=r"is not finite in epoch 2, after step 0 of 9; use a smaller --learning")
    with dying_after(0), refused:
        train(**unfinished)
    assert list_checkpoints(tmp_path / "run/checkpoint")[0] == newest


def test_a_forced_run_that_was_killed_leaves_nothing_behind_once_the_old_one_is_kept(flags, undisturbed, tmp_path):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    with dying_after(3):
        train(**{**flags, "run_dir": str(run), "force": True})
    assert len(list(tmp_path.iterdir())) == 2
    train(**{**flags, "run_dir": str(run)})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_is_stopped_while_it_is_evaluated_goes_on_there(tiny_dataset, train_flags, tmp_path, capsys):
    flags = train_flags(dataset=tiny_dataset, split="validation", validate_every=1, epochs=2, steps_per_call=4)
    train(**{**flags, "run_dir": str(tmp_path / "undisturbed")})
    stopped = {**flags, "run_dir": str(tmp_path / "stopped")}
    evaluate, count = Evaluator.evaluate, 0

    def stop_in_the_second(self, model):
        nonlocal count
        count += 1
        if count == 2:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the signal is acted on at once")
        return evaluate(self, model)

    with mock.patch.object(Evaluator, "evaluate", stop_in_the_second), pytest.raises(SystemExit) as ended:
        train(**stopped)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "stopped in epoch 2, after step 8; the same command goes on" in capsys.readouterr().out
    train(**stopped)
    check_same(tmp_path / "stopped", tmp_path / "undisturbed")


def test_calls_of_slow_steps_have_few(tiny_dataset, train_flags, tmp_path):
    flags = train_flags(dataset=tiny_dataset, epochs=1, steps_per_call=50, run_dir=str(tmp_path / "run"))
    done = []

    def note(self, position):
        done.append(position.step)

    with (
        mock.patch.object(Checkpointer, "save_if_due", note),
        mock.patch.object(loop, "_SECONDS_A_CALL", 1e-9),
    ):
        train(**flags)
    assert done == [*range(1, 9), 0]


def test_a_run_directory_in_use_is_refused(tiny_dataset, train_flags, tmp_path):
    with directory_lock(tmp_path), pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path)))
    shutil.rmtree(tmp_path)
