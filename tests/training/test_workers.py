"""Two processes that train together: what they leave, and what the one does when the other is gone."""

import json
import time

import numpy as np
import pytest
from training.worker_processes import finish, start

from rd_tf import command_line
from rd_tf.models.registry import load_model
from rd_tf.runtime import cluster
from rd_tf.storage import InputError
from rd_tf.train import train
from rd_tf.training.checkpoints import list_checkpoints
from rd_tf.training.workers import Workers, make_workers


def test_a_lost_worker_stops_the_other_and_both_go_on(tiny_dataset, tiny_teacher, train_flags, tmp_path):
    flags = train_flags(
        dataset=tiny_dataset,
        teacher=tiny_teacher,
        epochs=3,
        steps_per_call=3,
        discrepancy_start_epoch=0,
        checkpoint_minutes=0.005,
    )
    alone, run = tmp_path / "alone", tmp_path / "run"
    train(**{**flags, "run_dir": str(alone)})
    command = ["-m", "rd_tf.train", *command_line.flag_lines({**flags, "run_dir": str(run)}).splitlines()]
    processes = start(command, workers=2)
    while not list_checkpoints(run / "checkpoint"):
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.05)
    processes[1].kill()
    _, said = finish(processes[:1], code=1)[0]
    processes[1].communicate()
    sentence = said.splitlines()[-1]
    assert sentence.startswith("error: another of the 2 workers was lost in epoch ")
    assert "start all of them again with the same commands, and training goes on" in sentence
    assert "Traceback" not in said

    first, second = finish(start(command, workers=2))
    assert f"resumed from {run / 'checkpoint'}" in first[0]
    assert f"resumed from {run / 'checkpoint'}" in second[0]
    for one, other in zip(load_model(alone).get_weights(), load_model(run).get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    # Each ranked half of the users, and both know the whole.
    metrics = [json.loads((path / "metrics.json").read_text())["metrics"] for path in (alone, run)]
    assert metrics[0] == pytest.approx(metrics[1], rel=0.02)
    assert f"map {metrics[1]['map']:.4f}" in second[0]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("", (0, 1)),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', (0, 1)),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}', (1, 2)),
        ('{"cluster": {"chief": ["c:1"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', (1, 2)),
        ('{"cluster": {"chief": ["c:1"], "worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', (0, 2)),
    ],
)
def test_a_cluster_is_read_from_the_environment(config, found, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert cluster() == found


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no cluster or no task"),
        ('{"cluster": {"worker": ["a:1"]}}', "no cluster or no task"),
        ('{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}', "no workers, or one of them twice"),
        ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', "worker is no list"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', "one of them twice"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}', "not only chief"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "'worker' 1 is not in the cluster",
        ),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}', "is not in the cluster"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"], "index": 0}}', "is not in the cluster"),
    ],
)
def test_a_wrong_tf_config_is_one_sentence(config, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match=f"in the environment cannot be used .*{message}"):
        cluster()


def test_a_strategy_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="--strategy=multi_worker needs TF_CONFIG"):
        make_workers("multi_worker", 0)
    with pytest.raises(InputError, match="--replicas=64, but this machine has"):
        make_workers("mirrored", 64)
    two = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    monkeypatch.setenv("TF_CONFIG", two)
    with pytest.raises(InputError, match="--strategy=one, but TF_CONFIG names 2 workers"):
        make_workers("one", 0)


def test_shares_are_everything_once():
    shares = [list(Workers(None, index, 3).share(10)) for index in range(3)]
    assert [number for share in shares for number in share] == list(range(10))
    assert {len(share) for share in shares} == {3, 4}
