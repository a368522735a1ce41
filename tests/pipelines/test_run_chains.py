"""Children beside each other: their evidence, their failures, their cores, their end."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from pipelines.paper.chains import Chain, core_shares, run_chains
from rd_tf.storage import InputError


@pytest.fixture
def make_chain(tmp_path):
    def make(name, module="this", evidence=None, split="test"):
        log = tmp_path / "logs" / f"{name}.log"
        return Chain(name, module, [], log, evidence or {}, split, per_user=True)

    return make


def test_evidence_is_kept_as_a_chain_finishes(make_chain, make_run, tmp_path):
    run = make_run(tmp_path / "run", "teacher", 0)
    chain = make_chain("one", evidence={run: tmp_path / "results" / "teacher"})
    assert not chain.is_done()
    said = []
    assert run_chains([chain], 1, said.append) == []
    assert chain.is_done()
    assert said[0].startswith("one: begins")
    assert said[1].startswith("one: finished in")
    assert "Beautiful is better than ugly" in chain.log.read_text()


def test_a_failing_child_stops_no_other_and_its_log_is_named(make_chain, make_run, tmp_path):
    run = make_run(tmp_path / "run", "teacher", 0)
    bad, good = make_chain("bad", module="no_such_module"), make_chain("good", evidence={run: tmp_path / "kept"})
    failures = run_chains([bad, good], 1, lambda line: None)
    assert failures == [f"bad ended with 1 (see {bad.log})"]
    assert "No module named" in bad.log.read_text()
    assert good.is_done()


def test_a_child_that_leaves_no_run_has_failed(make_chain, tmp_path):
    chain = make_chain("idle", evidence={tmp_path / "nothing": tmp_path / "kept"})
    (failure,) = run_chains([chain], 2, lambda line: None)
    assert "nothing is not a directory" in failure
    assert str(chain.log) in failure


def test_evidence_that_cannot_be_copied_fails_its_chain_only(make_chain, make_run, tmp_path):
    damaged, whole = (make_run(tmp_path / name, "teacher", 0) for name in ("damaged", "whole"))
    (damaged / "per_user.parquet").write_text("no parquet")
    bad, good = (make_chain(run.name, evidence={run: tmp_path / f"kept {run.name}"}) for run in (damaged, whole))
    (failure,) = run_chains([bad, good], 1, lambda line: None)
    assert failure.startswith("damaged ")
    assert str(bad.log) in failure
    assert good.is_done()


def test_a_missing_file_of_a_run_fails_its_chain_only(make_chain, make_run, tmp_path):
    run = make_run(tmp_path / "run", "teacher", 0)
    (run / "history.csv").unlink()
    (failure,) = run_chains([make_chain("one", evidence={run: tmp_path / "kept"})], 1, lambda line: None)
    assert "history.csv" in failure


def test_the_log_of_the_attempt_before_stays(make_chain):
    chain = make_chain("one", module="no_such_module")
    run_chains([chain], 1, lambda line: None)
    run_chains([chain], 1, lambda line: None)
    before, after = chain.log.read_text().split("=== again, ")
    assert "No module named" in before
    assert "No module named" in after


def test_evidence_of_another_split_is_refused(make_chain, make_run, tmp_path):
    run = make_run(tmp_path / "run", "teacher", 0, split="validation")
    chain = make_chain("one", evidence={run: tmp_path / "kept"})
    chain.keep()
    with pytest.raises(InputError, match="is of the split validation, not test; name another --results"):
        chain.is_done()


def test_cores_are_shared_out_equally(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3, 5, 7})
    assert core_shares(1) == [{0, 2, 3, 5, 7}]
    assert core_shares(2) == [{0, 2}, {3, 5}]
    assert core_shares(6) == []
    monkeypatch.delattr(os, "sched_setaffinity")
    assert core_shares(2) == []


def test_a_chain_waits_for_those_that_it_comes_after(make_chain):
    second = dataclasses.replace(make_chain("second"), after=frozenset({"first", "not among them"}))
    said = []
    assert run_chains([second, make_chain("first")], 2, said.append) == []
    assert [line.split(" in ")[0].split(", ")[0] for line in said] == [
        *("first: begins", "first: finished"),
        *("second: begins", "second: finished"),
    ]


def test_what_comes_after_a_failure_is_not_begun(make_chain):
    bad, other = make_chain("bad", module="no_such_module"), make_chain("other")
    second = dataclasses.replace(make_chain("second"), after=frozenset({"bad"}))
    third = dataclasses.replace(make_chain("third"), after=frozenset({"second", "bad"}))
    assert run_chains([third, second, bad, other], 1, lambda line: None) == [
        f"bad ended with 1 (see {bad.log})",
        "third was not begun, since bad failed",
        "second was not begun, since bad failed",
    ]
    assert not second.log.exists()
    assert other.log.exists()


def test_children_end_with_their_parent(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    parent = (
        "import signal, sys; from pathlib import Path;"
        "from pipelines.paper.chains import Chain, run_chains;"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143));"
        "run_chains([Chain('s', 'sleeper', [], Path('s.log'), {}, 'test', False)], 1)"
    )
    path = os.pathsep.join([os.getcwd(), str(tmp_path)])  # noqa: PTH109
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
