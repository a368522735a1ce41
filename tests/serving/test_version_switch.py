"""Versions come and go while requests are answered."""

import gc
import json
import os
import shutil
import socket
import threading
import time
import urllib.request

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig
from tiny_models import publish, write_adding_model

from rd_tf.serving.server.model_server import ModelServer
from rd_tf.serving.server.models import ModelStore, ServedModel
from rd_tf.serving.server.settings import Limits, bind, check_models
from rd_tf.serving.server.wire import ServingError, invalid
from rd_tf.storage import InputError

NAMES = {value: name for name, value in ModelVersionStatus.State.items()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Versions that add 1 and 2, and one whose warm-up request does not fit its signature."""
    root = tmp_path_factory.mktemp("sources")
    write_adding_model(root / "1", 1, warmup="x")
    write_adding_model(root / "2", 2)
    write_adding_model(root / "cold", 3, warmup="wrong")
    return root


@pytest.fixture
def base_path(sources, tmp_path):
    publish(sources / "1", tmp_path, 1)
    return tmp_path


def make_link(path):
    path.symlink_to(path.name)


def make_pipe(path):
    path.mkdir()
    os.mkfifo(path / "saved_model.pb")


def make_pipe_for_warmup(path):
    shutil.copytree(path.parent / "1", path)
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("make", [make_link, make_pipe, make_pipe_for_warmup])
def test_one_bad_entry_stops_no_other_version(base_path, sources, make):
    make(base_path / "2")
    model = ServedModel(ModelConfig(name="adding", base_path=str(base_path)), ModelStore([], Limits(), 0)._load)
    model.config.model_version_policy.all.SetInParent()
    publish(sources / "2", base_path, 3)
    model.poll()
    serving = {status.version: NAMES[status.state] for status in model.statuses(None)}
    assert serving.pop(2, "END") == "END"
    assert serving == {1: "AVAILABLE", 3: "AVAILABLE"}
    assert model.unload()


@pytest.fixture
def server(base_path):
    rest_socket = bind("127.0.0.1", 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = [ModelConfig(name="adding", base_path=str(base_path))]
    running = ModelServer(models, port=port, rest_socket=rest_socket, poll_seconds=0.05, threads=2)
    running.url = f"http://127.0.0.1:{rest_socket.getsockname()[1]}/v1/models/adding"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as running.channel:
        yield running
    running.close()


def get(url):
    with urllib.request.urlopen(url) as response:
        return json.load(response)


def predict(url):
    with urllib.request.urlopen(f"{url}:predict", b'{"instances": [0.0]}') as response:
        return json.load(response)["predictions"][0]


def states(server):
    status = get(server.url)["model_version_status"]
    return {int(version["version"]): version["state"] for version in status}


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_request_fails_while_versions_switch_and_none_of_them_stays_in_memory(server, base_path, sources):
    answers, failures, stop = {1.0: 0, 2.0: 0}, [], threading.Event()
    request = predict_pb2.PredictRequest(model_spec=ModelSpec(name="adding"))
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0]))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)

    def ask(answer):
        while not stop.wait(0.005):
            try:
                answers[answer()] += 1
            except Exception as error:
                failures.append(error)

    asking = [
        threading.Thread(target=ask, args=(lambda: predict(server.url),)),
        threading.Thread(target=ask, args=(lambda: stub.Predict(request).outputs["y"].float_val[0],)),
    ]
    for thread in asking:
        thread.start()
    for number in range(2, 7):
        publish(sources / str(2 - number % 2), base_path, number)
        wait_for(lambda number=number: states(server).get(number - 1) == "END")
    stop.set()
    for thread in asking:
        thread.join()
    assert not failures
    assert min(answers.values()) > 0
    assert predict(server.url) == 2.0
    assert states(server) == {6: "AVAILABLE", 5: "END", 4: "END", 3: "END", 2: "END", 1: "END"}
    loaded = [
        graph for graph in gc.get_objects() if isinstance(graph, tf.Graph) and "added" in str(graph.as_graph_def())
    ]
    assert len(loaded) == 1


def test_a_broken_version_does_not_replace_a_good_one_until_it_is_mended(server, base_path, sources):
    publish(sources / "2", base_path, 2)
    wait_for(lambda: predict(server.url) == 2.0)
    (base_path / "3").mkdir()
    wait_for(lambda: states(server).get(3) == "END")
    assert predict(server.url) == 2.0
    error = get(server.url + "/versions/3")["model_version_status"][0]["status"]
    assert error["error_code"] == "DATA_LOSS"
    assert "cannot be loaded" in error["error_message"]
    shutil.copytree(sources / "1", base_path / "3", dirs_exist_ok=True)
    wait_for(lambda: states(server) == {3: "AVAILABLE", 2: "END", 1: "END"})
    assert predict(server.url) == 1.0


def test_a_version_whose_warm_up_fails_or_whose_variables_are_missing_never_goes_live(server, base_path, sources):
    publish(sources / "cold", base_path, 2)
    wait_for(lambda: states(server).get(2) == "END")
    status = get(server.url + "/versions/2")["model_version_status"][0]["status"]
    assert status["error_message"].startswith("warm-up failed: unknown inputs: wrong")
    shutil.copytree(sources / "2", base_path / ".tmp-3", ignore=shutil.ignore_patterns("variables.*"))
    (base_path / ".tmp-3").rename(base_path / "3")
    wait_for(lambda: states(server).get(3) == "END")
    assert predict(server.url) == 1.0


def cut(source, target):
    """Copies a version and leaves its warm-up file half."""
    shutil.copytree(source, target)
    file = target / "assets.extra" / "tf_serving_warmup_requests"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_cut_warm_up_file_ends_the_load_with_one_sentence(server, base_path, sources, caplog):
    cut(sources / "1", base_path / ".tmp-2")
    (base_path / ".tmp-2").rename(base_path / "2")
    wait_for(lambda: states(server).get(2) == "END")
    status = get(server.url + "/versions/2")["model_version_status"][0]["status"]
    assert status["error_code"] == "DATA_LOSS"
    assert f"{base_path}/2/assets.extra/tf_serving_warmup_requests cannot be read: " in status["error_message"]
    assert states(server) == {2: "END", 1: "AVAILABLE"}
    assert predict(server.url) == 1.0
    time.sleep(0.3)
    assert [record.exc_info for record in caplog.records if record.levelname == "ERROR"] == [None]


def test_a_warm_up_file_that_holds_something_else_ends_the_load(sources, tmp_path):
    shutil.copytree(sources / "2", tmp_path / "1")
    file = tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(b"\xff" * 9)
    server = ModelServer([ModelConfig(name="adding", base_path=str(tmp_path))])
    (error,) = server.store.unavailable()["adding"]
    server.close()
    assert error.startswith(f"warm-up failed: {file} cannot be read: ")


def test_a_version_in_use_is_closed_after_its_last_request(server, base_path, sources):
    with server.store.use(ModelSpec(name="adding")) as version:
        publish(sources / "2", base_path, 2)
        wait_for(lambda: states(server) == {2: "AVAILABLE", 1: "UNLOADING"})
        assert version.run("", {"x": tf.constant([0.0]).numpy()})["y"].tolist() == [1.0]
    wait_for(lambda: states(server) == {2: "AVAILABLE", 1: "END"})


def test_other_models_are_served_on_request(server, base_path):
    stub = model_service_pb2_grpc.ModelServiceStub(server.channel)
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path=str(base_path), model_platform="tensorflow")
    stub.HandleReloadConfigRequest(request)
    assert predict(server.url.replace("adding", "other")) == 1.0
    with pytest.raises(urllib.error.HTTPError, match="404"):
        predict(server.url)
    request.config.model_config_list.config[0].base_path = "/nowhere"
    with pytest.raises(grpc.RpcError, match="'/nowhere' of model other is not a directory"):
        stub.HandleReloadConfigRequest(request)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "model m has no model_platform"),
        ({"model_platform": "caffe"}, "of the platform caffe"),
        ({"model_type": "TENSORFLOW", "model_platform": "tensorflow"}, "has a model_type"),
        ({"model_type": "OTHER"}, "has a model_type"),
        ({"model_platform": "tensorflow"}, None),
        ({"model_type": "TENSORFLOW"}, None),
    ],
)
def test_a_model_must_say_its_platform(tmp_path, given, message):
    config = ModelServerConfig()
    config.model_config_list.config.add(name="m", base_path=str(tmp_path), **given)
    if message is None:
        assert [model.name for model in check_models(config, "the file")] == ["m"]
    else:
        with pytest.raises(InputError, match=f"the file: model m.*{message.removeprefix('model m')}"):
            check_models(config, "the file")


class FakeVersion:
    def __init__(self, directory, number):
        if (directory / "broken").exists():
            raise invalid("broken")
        if (directory / "odd").exists():
            raise KeyError("two\nlines")
        self.number, self.is_idle, self.closed = number, True, False

    def acquire(self):
        self.is_idle = False

    def close(self):
        self.closed = True


def served(tmp_path, numbers, policy):
    for number in numbers:
        (tmp_path / str(number)).mkdir()
    (tmp_path / "notes").mkdir()
    model = ServedModel(ModelConfig(name="m", base_path=str(tmp_path), **policy), FakeVersion)
    model.poll()
    return model


def serving(model):
    return [status.version for status in model.statuses(None) if NAMES[status.state] == "AVAILABLE"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, [10]),
        ({"latest": {"num_versions": 2}}, [10, 9]),
        ({"all": {}}, [10, 9, 1]),
        ({"specific": {"versions": [1, 9, 11]}}, [9, 1]),
    ],
)
def test_the_policy_chooses_versions_by_number(tmp_path, policy, expected):
    assert serving(served(tmp_path, [1, 9, 10], {"model_version_policy": policy})) == expected


def test_whatever_a_load_raises_ends_it_once_and_leaves_the_version_before(tmp_path, caplog):
    model = served(tmp_path, [1], {})
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "odd").touch()
    model.poll()
    model.poll()
    failed, good = model.statuses(None)
    assert (NAMES[failed.state], failed.status.error_message) == ("END", r"KeyError: 'two\nlines'")
    assert NAMES[good.state] == "AVAILABLE"
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.exc_info for record in errors] == [None]
    (tmp_path / "2" / "odd").unlink()
    model.poll()
    assert serving(model) == [2]


def test_a_version_is_any_number_of_int64(tmp_path):
    model = served(tmp_path, [2**63 - 1, 2**63, 10**20], {"model_version_policy": {"all": {}}})
    assert serving(model) == [2**63 - 1]


def test_a_label_names_a_version(tmp_path):
    labels = {"stable": 1, "gone": 7}
    model = served(tmp_path, [1, 2], {"model_version_policy": {"all": {}}, "version_labels": labels})
    assert model.acquire(ModelSpec(version_label="stable")).number == 1
    assert model.acquire(ModelSpec()).number == 2
    with pytest.raises(ServingError, match="unrecognized version label 'new'"):
        model.acquire(ModelSpec(version_label="new"))
    with pytest.raises(ServingError, match="servable not found"):
        model.acquire(ModelSpec(version_label="gone"))


def test_a_removed_version_is_unloaded_and_a_base_path_that_vanishes_is_not(tmp_path):
    model = served(tmp_path, [1, 2], {"model_version_policy": {"all": {}}})
    (tmp_path / "1").rmdir()
    model.poll()
    assert serving(model) == [2]
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    model.poll()
    assert serving(model) == [2]


def test_the_oldest_ended_versions_are_forgotten(tmp_path):
    model = served(tmp_path, [1], {})
    for number in range(2, 30):
        (tmp_path / str(number)).mkdir()
        model.poll()
    assert [status.version for status in model.statuses(None)] == [29, *range(28, 20, -1)]


def test_the_limit_of_time_ends_a_request_and_leaves_the_version_usable(base_path):
    limits = Limits(request_timeout_seconds=0.3)
    server = ModelServer([ModelConfig(name="adding", base_path=str(base_path))], limits=limits)
    with server.store.use(ModelSpec(name="adding")) as version:
        with pytest.raises(ServingError) as caught:
            version.run("count", {"steps": tf.constant([10**12]).numpy().astype("int64")})
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert version.run("count", {"steps": tf.constant([3], tf.int64).numpy()})["counted"] == 3
        assert version.run("", {"x": tf.constant([0.0]).numpy()})["y"] == 1.0
    server.close()
