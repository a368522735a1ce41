"""The examples, as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["door", "own_ranker", "own_teacher"])
def test_an_example_runs_as_it_is(name, tmp_path):
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) < 40
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    ended = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    found = ended.stdout.rpartition("MAP: ")[2].replace(",", " ").split()
    assert max(float(word) for word in found if word.startswith("0.")) > 0.1
    if name != "own_teacher":
        assert list(tmp_path.glob("saved_models/*/1/saved_model.pb"))
