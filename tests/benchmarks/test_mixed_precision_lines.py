"""What the benchmark of the dtype policies prints of what it has trained."""

import json

import pytest

from benchmarks import mixed_precision as module
from benchmarks.mixed_precision import POLICIES, Trained, mixed_precision
from rd_tf.storage import InputError


def test_a_line_compares_the_mean_over_the_seeds_with_that_of_float32(tmp_path, monkeypatch):
    maps = {"float32": (0.3, 0.5), "mixed_bfloat16": (0.29, 0.49), "mixed_float16": (0.31, 0.5)}
    trained = {policy: {"student": [Trained(value, 2.0) for value in maps[policy]]} for policy in POLICIES}
    asked = []
    monkeypatch.setattr(module, "train_roles", lambda *arguments: asked.append(arguments[1:]) or trained)
    output = tmp_path / "lines.jsonl"
    mixed_precision(seeds=["3", "4"], cases=["student"], output=str(output))
    machine, *lines = [json.loads(line) for line in output.read_text().splitlines()]
    ((arguments, roles, seeds),) = asked
    assert arguments[0].endswith("configs/quickstart.cfg")
    assert (roles, seeds) == (["student"], [3, 4])
    assert machine["benchmark"] == "machine"
    assert [line["case"] for line in lines] == [f"student {policy}" for policy in POLICIES]
    assert [line["map_ratio"] for line in lines] == [1.0, 0.975, 1.012]
    assert lines[1]["maps"] == [0.29, 0.49]
    assert (lines[1]["map"], lines[1]["median"], lines[1]["unit"]) == (0.39, 2.0, "s/epoch")


def test_a_role_that_is_none_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match="--cases=pupil is no case of this benchmark; choose from teacher,student,dis"):
        mixed_precision(seeds=["0"], cases=["pupil"], output="")
