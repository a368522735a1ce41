"""python -m rd_tf.serve, as a process that curl and PyPI's gRPC stubs talk to."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tiny_models import publish, write_adding_model

from rd_tf import command_line
from rd_tf.serve import serve
from rd_tf.serving.server.settings import check_base_path, find_binary
from rd_tf.storage import InputError

ROOT = Path(__file__).parents[2]


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def start(*arguments, **options):
    command = [sys.executable, "-m", "rd_tf.serve", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **options
    )


def curl(url, *arguments):
    return json.loads(subprocess.run(["curl", "-sS", url, *arguments], capture_output=True, check=True).stdout)


def test_a_server_answers_curl_and_stubs_switches_versions_and_drains_on_sigterm(tmp_path):
    write_adding_model(tmp_path / "source", 1)
    models = tmp_path / "models"
    models.mkdir()
    publish(tmp_path / "source", models, 1)
    port, rest_port = free_ports(2)
    config = tmp_path / "models.config"
    described = f'name: "adding" base_path: "{models}" model_platform: "tensorflow"'
    config.write_text(f"model_config_list {{ config {{ {described} }} }}")
    ports = [f"--port={port}", f"--rest_api_port={rest_port}"]
    server = start(f"--model_config_file={config}", "--binary=never", "--request_timeout_seconds=60", *ports)
    ready = server.stdout.readline()
    url = f"http://127.0.0.1:{rest_port}/v1/models/adding"
    assert ready.startswith(f"ready: REST at {url} (try: curl {url}/metadata), gRPC at 127.0.0.1:{port}"), (
        server.stderr.read()
    )
    assert curl(f"{url}:predict", "-d", '{"instances": [1.5]}') == {"predictions": [2.5]}
    assert curl(f"{url}/metadata")["model_spec"]["version"] == "1"
    request = predict_pb2.PredictRequest(model_spec=ModelSpec(name="adding"))
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.5]))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert stub.Predict(request).outputs["y"].float_val == [2.5]
    publish(tmp_path / "source", models, 2)
    while curl(url)["model_version_status"][-1]["state"] != "END":
        pass
    under_way = []
    counting = json.dumps({"signature_name": "count", "inputs": [200_000]})
    asking = threading.Thread(target=lambda: under_way.append(curl(f"{url}:predict", "-d", counting)))
    asking.start()
    time.sleep(1)
    server.send_signal(signal.SIGTERM)
    asking.join()
    assert under_way == [{"outputs": 200_000}]
    _, errors = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "adding: version 2 is served\nadding: version 1 is unloaded\n" in errors
    assert "Traceback" not in errors


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "program").touch()
    return {
        **command_line.default_flags(serve),
        "binary": "never",
        "model_base_path": str(tmp_path / "models"),
        "port": 0,
    }


def config_file(directory, text):
    (directory / "models.config").write_text(text)
    return {"model_base_path": "", "model_config_file": str(directory / "models.config")}


def test_bad_flags_are_one_sentence(flags, tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    cases = [
        ({"model_base_path": ""}, "give either --model_base_path"),
        ({"model_config_file": "x"}, "give either --model_base_path"),
        ({"model_base_path": "/nowhere"}, "--model_base_path=/nowhere is not a directory"),
        ({"model_name": ""}, "--model_name is empty"),
        ({"rest_api_port": 0}, "--port and --rest_api_port are both 0"),
        ({"rest_api_port": port}, f"cannot listen on 127.0.0.1:{port}: address already in use"),
        ({"port": port, "rest_api_port": 0}, f"cannot listen on 127.0.0.1:{port}: address already in use"),
        ({"host": "no.such.host.invalid"}, "--host=no.such.host.invalid is not an address"),
        ({"binary": str(tmp_path / "program")}, "program is not a program"),
        (config_file(tmp_path, ""), "names no model"),
        ({"batching_parameters_file": "x"}, "is given without --enable_batching"),
        (
            {"enable_batching": True, "batching_parameters_file": "/nowhere"},
            "--batching_parameters_file=/nowhere cannot",
        ),
    ]
    for changed, message in cases:
        with pytest.raises(InputError, match=message):
            serve(**{**flags, **changed})
    taken.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list {\n  config {\n    nmae: 'a'\n  }\n}", "line 3 is not a ModelServerConfig"),
        ("model_config_list {", "line 1 is not a ModelServerConfig"),
        ("model_config_list { config { base_path: '/' } }", "a model without a name"),
        (
            "model_config_list { config { name: 'a' base_path: '/nowhere' model_platform: 'tensorflow' } }",
            "'/nowhere' of model a is not a directory",
        ),
        ("model_config_list { config { name: 'a' base_path: '/' model_platform: 'caffe' } }", "platform caffe"),
        (
            "model_config_list { config { name: 'a' base_path: '/' model_platform: 'tensorflow' } "
            "config { name: 'a' base_path: '/' model_platform: 'tensorflow' } }",
            "names a model twice",
        ),
    ],
)
def test_a_bad_configuration_is_one_sentence(flags, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        serve(**{**flags, **config_file(tmp_path, text)})


@pytest.fixture
def places(tmp_path):
    """Directories that somebody may take for the one of a model's versions."""
    for name in ("good/1", "good/v2", "named/v1", "named/.tmp-1-a", "bare"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "saved_model.pb").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.weights.h5").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


WRONG_PLACES = {
    "all/good/1": "is a SavedModel, not the parent of version directories; name its parent, {root}/all/good",
    "all/bare": "is a SavedModel, not the parent of version directories; move it to {root}/all/bare/1",
    "run": "is a run directory; export it with python -m rd_tf.export --run_dir={root}/run",
    "all/named": "has a version 'v1', whose name is no number; rename it, to 1 for example",
    "all/nothing": "is not a directory; name the parent of the version directories",
}


@pytest.mark.parametrize("place", WRONG_PLACES)
def test_a_directory_that_holds_no_versions_is_refused_by_what_it_is(flags, places, place):
    message = re.escape(WRONG_PLACES[place].format(root=places))
    with pytest.raises(InputError, match=rf"^--model_base_path={places}/{place} {message}"):
        serve(**{**flags, "model_base_path": f"{places}/{place}"})
    text = f"model_config_list {{ config {{ name: 'a' base_path: '{places}/{place}' model_platform: 'tensorflow' }} }}"
    with pytest.raises(InputError, match=rf"base_path '{places}/{place}' of model a {message}"):
        serve(**{**flags, **config_file(places, text)})


def test_directories_of_versions_there_or_to_come_are_good(places):
    for place in ("all/good", "empty"):
        check_base_path(f"{places}/{place}", "it")


def test_a_directory_of_models_is_refused_with_the_name_of_one(places):
    (places / "all" / "bare" / "saved_model.pb").unlink()
    with pytest.raises(InputError, match=rf"it is a directory of models; name one of them, such as {places}/all/good"):
        check_base_path(f"{places}/all", "it")


def test_a_url_is_one_sentence(flags, tmp_path):
    message = "'?s3://bucket/student'? .*is a URL, but only directories of this machine are read; copy"
    with pytest.raises(
        InputError, match="--model_base_path=s3://bucket/student is a URL, but only directories of this"
    ):
        serve(**{**flags, "model_base_path": "s3://bucket/student"})
    text = "model_config_list { config { name: 'a' base_path: 's3://bucket/student' model_platform: 'tensorflow' } }"
    with pytest.raises(InputError, match=message):
        serve(**{**flags, **config_file(tmp_path, text)})


def test_a_relative_base_path_is_refused_as_tensorflow_model_server_does(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "model_config_list { config { name: 'a' base_path: 'models' model_platform: 'tensorflow' } }"
    with pytest.raises(InputError, match=f"base_path 'models' of model a is relative; write '{tmp_path}/models'"):
        serve(**{**flags, **config_file(tmp_path, text)})


@pytest.fixture
def program(tmp_path):
    """A tensorflow_model_server that only says what it was started with."""
    file = tmp_path / "bin" / "tensorflow_model_server"
    file.parent.mkdir()
    file.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    file.chmod(0o755)
    return file


def test_the_program_on_path_is_started_with_the_same_flags(program, tmp_path):
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    given = [f"--model_base_path={tmp_path}", "--model_name=student", "--port=0", "--request_timeout_seconds=2.5"]
    given += ["--enable_batching", "--batching_parameters_file=batching.config"]
    output, errors = start(*given, env=environment).communicate()
    arguments = output.splitlines()
    # That program cannot do without gRPC.
    assert arguments.pop(2).startswith("--grpc_socket_path=")
    assert arguments == [
        "--model_name=student",
        f"--model_base_path={tmp_path}",
        "--enable_batching=true",
        f"--batching_parameters_file={ROOT / 'batching.config'}",
        "--port=0",
        "--grpc_max_threads=64",
        "--rest_api_port=8501",
        "--rest_api_num_threads=8",
        "--rest_api_timeout_in_ms=2500",
        "--file_system_poll_wait_seconds=1",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1000000",
    ]
    assert errors.startswith(f"starting {program} --model_name=student")
    assert "listens on every interface" in errors


def test_a_program_elsewhere_gets_the_configuration(program, tmp_path):
    output, _ = start("--model_config_file=models.config", f"--binary={program}").communicate()
    assert output.splitlines()[:2] == [
        f"--model_config_file={ROOT / 'models.config'}",
        "--allow_version_labels_for_unavailable_models=true",
    ]


def test_never_means_never(program, monkeypatch):
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_binary("never") is None
    assert find_binary("auto") == str(program)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_binary("auto") is None
