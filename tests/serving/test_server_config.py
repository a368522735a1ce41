"""The files beside the models: complete, readable by the server's protos, never written over an edited one."""

import http.server
import subprocess
import threading

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from rd_tf import storage
from rd_tf.serving.compose import HEALTHCHECK, IMAGE
from rd_tf.serving.kept_file import Outcome, write_unless_edited
from rd_tf.serving.publishing import publishing
from rd_tf.serving.server_config import (
    ServerOptions,
    batching_text,
    models_text,
    write_server_config,
)

FILES = {"models.config", "batching.config", "monitoring.config", "healthcheck.sh", "compose.yaml"}
FIELD = descriptor_pb2.FieldDescriptorProto


@pytest.fixture(scope="module")
def parse():
    """Parses a text as a message of the server that the Python package lacks."""
    file = descriptor_pb2.FileDescriptorProto(name="server.proto", package="server", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)

    def define(message, **fields):
        added = file.message_type.add(name=message)
        for number, (name, (kind, label, type_name)) in enumerate(fields.items(), start=1):
            added.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)

    whole = (FIELD.TYPE_MESSAGE, FIELD.LABEL_OPTIONAL, ".google.protobuf.Int64Value")
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    define(
        "Batching",
        **dict.fromkeys(names, whole),
        allowed_batch_sizes=(FIELD.TYPE_INT64, FIELD.LABEL_REPEATED, None),
        pad_variable_length_inputs=(FIELD.TYPE_BOOL, FIELD.LABEL_OPTIONAL, None),
    )
    switch, text = (FIELD.TYPE_BOOL, FIELD.LABEL_OPTIONAL, None), (FIELD.TYPE_STRING, FIELD.LABEL_OPTIONAL, None)
    define("Prometheus", enable=switch, path=text)
    define("Monitoring", prometheus_config=(FIELD.TYPE_MESSAGE, FIELD.LABEL_OPTIONAL, ".server.Prometheus"))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return lambda name, text: text_format.Parse(
        text, message_factory.GetMessageClass(pool.FindMessageTypeByName(f"server.{name}"))()
    )


def publish(export_dir, *names):
    for name in names:
        with publishing(export_dir / name) as new:
            (new.directory / "saved_model.pb").touch()


def read_models(text):
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return [(model.name, model.base_path, model.model_platform) for model in config.model_config_list.config]


def test_models_are_those_with_a_version_under_the_containers_paths(tmp_path):
    publish(tmp_path, "b.2", "a-1")
    for name in ("no_version/.tmp-1-x", ".hidden/1", "not a name/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    assert read_models(models_text(tmp_path)) == [
        ("a-1", "/models/a-1", "tensorflow"),
        ("b.2", "/models/b.2", "tensorflow"),
    ]


def test_no_models_are_a_configuration_too(tmp_path):
    config = text_format.Parse(models_text(tmp_path), model_server_config_pb2.ModelServerConfig())
    assert config.WhichOneof("config") == "model_config_list"


def test_batching_pads_and_allows_powers_of_two(parse):
    batching = parse("Batching", batching_text(ServerOptions(max_batch_size=48, batch_timeout_micros=500)))
    assert batching.max_batch_size.value == 48
    assert batching.batch_timeout_micros.value == 500
    assert list(batching.allowed_batch_sizes) == [1, 2, 4, 8, 16, 32, 48]
    assert batching.pad_variable_length_inputs
    assert not batching.HasField("num_batch_threads")
    batching = parse("Batching", batching_text(ServerOptions(8, num_batch_threads=3, allowed_batch_sizes=[4, 8])))
    assert (batching.num_batch_threads.value, list(batching.allowed_batch_sizes)) == (3, [4, 8])
    assert list(parse("Batching", batching_text(ServerOptions(1))).allowed_batch_sizes) == [1]


@pytest.mark.parametrize("sizes", [[4], [4, 4, 8], [8, 4], [0, 8], [4, 16]])
def test_batch_sizes_that_the_server_would_refuse(sizes):
    with pytest.raises(
        ValueError, match="allowed_batch_sizes must ascend from 1 or more to max_batch_size = 8; received"
    ):
        batching_text(ServerOptions(8, allowed_batch_sizes=sizes))


def test_all_files_are_written_once_and_again_only_where_they_change(tmp_path, parse):
    publish(tmp_path, "student")
    assert write_server_config(tmp_path) == dict.fromkeys(FILES, Outcome.WRITTEN)
    monitoring = parse("Monitoring", (tmp_path / "monitoring.config").read_text())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"
    parse("Batching", (tmp_path / "batching.config").read_text())
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in FILES}
    assert write_server_config(tmp_path) == dict.fromkeys(FILES, Outcome.UNCHANGED)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in FILES} == times
    publish(tmp_path, "teacher")
    changed = {name for name, outcome in write_server_config(tmp_path).items() if outcome is Outcome.WRITTEN}
    assert changed == {"models.config"}
    assert [name for name, *_ in read_models((tmp_path / "models.config").read_text())] == ["student", "teacher"]


def test_compose_binds_to_this_machine_and_names_every_file(tmp_path):
    write_server_config(tmp_path, ServerOptions(grpc_port=9000, rest_port=9001, poll_seconds=20))
    text = (tmp_path / "compose.yaml").read_text()
    lines = [line.strip(" -") for line in text.splitlines()]
    assert '"127.0.0.1:9000:8500"' in lines
    assert '"127.0.0.1:9001:8501"' in lines
    assert f"image: {IMAGE}" in lines
    assert {"read_only: true", "restart: unless-stopped", "enable_batching=true"} <= set(lines)
    assert {"model_config_file_poll_wait_seconds=20", "file_system_poll_wait_seconds=20"} <= set(lines)
    for name in FILES - {"compose.yaml"}:
        assert f"/models/{name}" in text
    with pytest.raises(ValueError, match="grpc_port and rest_port are both 8501"):
        write_server_config(tmp_path, ServerOptions(grpc_port=8501))


def test_an_edited_file_is_left_alone_and_told(tmp_path):
    write_server_config(tmp_path)
    edited = (tmp_path / "compose.yaml").read_text().replace("unless-stopped", "always")
    (tmp_path / "compose.yaml").write_text(edited)
    outcomes = write_server_config(tmp_path, ServerOptions(rest_port=9001))
    assert {name for name, outcome in outcomes.items() if outcome is Outcome.EDITED} == {"compose.yaml"}
    assert (tmp_path / "compose.yaml").read_text() == edited
    (tmp_path / "compose.yaml").unlink()
    assert write_server_config(tmp_path)["compose.yaml"] is Outcome.WRITTEN


@pytest.mark.parametrize("own", ["", "mine", "# a comment\nold\n", "\xff"])
def test_a_file_without_our_comment_is_somebodys_own(tmp_path, own):
    (tmp_path / "file").write_text(own, encoding="latin-1")
    before = (tmp_path / "file").read_bytes()
    assert write_unless_edited(tmp_path / "file", "old\n") is Outcome.EDITED
    assert (tmp_path / "file").read_bytes() == before


def test_two_exports_at_once_name_both_models(tmp_path):
    def export(name):
        publish(tmp_path, name)
        write_server_config(tmp_path)

    threads = [threading.Thread(target=export, args=(name,)) for name in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [name for name, *_ in read_models((tmp_path / "models.config").read_text())] == ["a", "b", "c", "d"]


def test_the_health_check_asks_for_every_model(tmp_path):
    states = {"a": "AVAILABLE", "b-2": "AVAILABLE"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state = states.get(self.path.removeprefix("/v1/models/"))
            body = f'{{"model_version_status": [{{"version": "1", "state": "{state}"}}]}}'.encode()
            self.send_response(200 if state else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    def check(port):
        command = ["bash", str(tmp_path / "healthcheck.sh"), str(tmp_path / "models.config"), str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout.strip()

    storage.write_text(tmp_path / "healthcheck.sh", HEALTHCHECK)
    publish(tmp_path, *states)
    (tmp_path / "models.config").write_text(models_text(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert check(port) == (0, "")
        states["b-2"] = "LOADING"
        assert check(port) == (1, "b-2 is not served")
        del states["a"]
        assert check(port) == (1, "a is not served")
        server.shutdown()
    assert check(port)[0] == 1
