"""The examples, as they are."""

import json
import os
import runpy
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from rd_tf.plugins import DISTILLATION_LOSSES, RANKERS

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["door", "own_ranker", "own_teacher"])
def test_an_example_runs_as_it_is(name, tmp_path, monkeypatch, capsys):
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    for table, own in ((RANKERS, "gru"), (DISTILLATION_LOSSES, "my_softmax")):
        # Forgotten after the test.
        monkeypatch.setitem(table, own, None)
        del table[own]
    runpy.run_path(str(path), run_name="__main__")
    found = capsys.readouterr().out.rpartition("MAP: ")[2].replace(",", " ").split()
    assert max(float(word) for word in found if word.startswith("0.")) > 0.1
    if name != "own_teacher":
        assert list(tmp_path.glob("saved_models/*/1/saved_model.pb"))
    if name == "own_ranker":
        assert served(tmp_path / "saved_models/gru")


def served(model):
    """What `rd_tf.serve` answers to a user with three recent items."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, "-m", "rd_tf.serve", "--model_name=gru", f"--model_base_path={model}", "--binary=never"]
    ports = ["--port=0", f"--rest_api_port={port}"]
    server = subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout.readline().startswith("ready: ")
        body = {
            "instances": [{"user_id": "user-1", "recent_items": ["place-1", "place-2"], "exclude_items": [], "k": 5}]
        }
        url = f"http://127.0.0.1:{port}/v1/models/gru:predict"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
            return json.load(answer)["predictions"][0]
    finally:
        server.terminate()
        server.wait()
