"""The files beside the models: complete, readable by the server's protos, never written over an edited one."""

import http.server
import os
import subprocess
import tempfile
import threading

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from rd_tf import command_line
from rd_tf.serve import serve
from rd_tf.serving.publishing import publishing
from rd_tf.serving.server.settings import ServeOptions, binary_arguments
from rd_tf.serving.server_files import (
    HEALTHCHECK,
    IMAGE,
    Outcome,
    models_text,
    write_server_config,
    write_unless_edited,
)
from rd_tf.storage import write_text

FILES = {"models.config", "monitoring.config", "healthcheck.sh", "compose.yaml"}
FIELD = descriptor_pb2.FieldDescriptorProto


@pytest.fixture(scope="module")
def parse():
    """Parses a text as a message of the server that the Python package lacks."""
    file = descriptor_pb2.FileDescriptorProto(name="server.proto", package="server", syntax="proto3")

    def define(message, **fields):
        added = file.message_type.add(name=message)
        for number, (name, (kind, label, type_name)) in enumerate(fields.items(), start=1):
            added.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)

    switch, text = (FIELD.TYPE_BOOL, FIELD.LABEL_OPTIONAL, None), (FIELD.TYPE_STRING, FIELD.LABEL_OPTIONAL, None)
    define("Prometheus", enable=switch, path=text)
    define("Monitoring", prometheus_config=(FIELD.TYPE_MESSAGE, FIELD.LABEL_OPTIONAL, ".server.Prometheus"))
    pool = descriptor_pool.DescriptorPool()
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


def test_all_files_are_written_once_and_again_only_where_they_change(tmp_path, parse):
    publish(tmp_path, "student")
    assert write_server_config(tmp_path) == dict.fromkeys(FILES, Outcome.WRITTEN)
    monitoring = parse("Monitoring", (tmp_path / "monitoring.config").read_text())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in FILES}
    assert write_server_config(tmp_path) == dict.fromkeys(FILES, Outcome.UNCHANGED)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in FILES} == times
    publish(tmp_path, "teacher")
    changed = {name for name, outcome in write_server_config(tmp_path).items() if outcome is Outcome.WRITTEN}
    assert changed == {"models.config"}
    assert [name for name, *_ in read_models((tmp_path / "models.config").read_text())] == ["student", "teacher"]


def test_compose_binds_to_this_machine_and_names_every_file(tmp_path):
    write_server_config(tmp_path)
    text = (tmp_path / "compose.yaml").read_text()
    lines = [line.strip(" -") for line in text.splitlines()]
    assert '"127.0.0.1:8500:8500"' in lines
    assert '"127.0.0.1:8501:8501"' in lines
    assert f"image: {IMAGE}" in lines
    assert {"read_only: true", "restart: unless-stopped"} <= set(lines)
    assert {"model_config_file_poll_wait_seconds=5", "file_system_poll_wait_seconds=5"} <= set(lines)
    for name in FILES - {"compose.yaml"}:
        assert f"/models/{name}" in text
    write_server_config(tmp_path, "own/image:1")
    assert "    image: own/image:1\n" in (tmp_path / "compose.yaml").read_text()


def test_nothing_that_is_shipped_batches(tmp_path):
    publish(tmp_path, "student")
    write_server_config(tmp_path)
    for file in FILES:
        assert "batching" not in (tmp_path / file).read_text()


def test_compose_lets_many_callers_in_and_gives_a_broken_version_up_within_seconds(tmp_path):
    write_server_config(tmp_path)
    text = (tmp_path / "compose.yaml").read_text()
    for argument in ("grpc_max_threads=64", "max_num_load_retries=1", "load_retry_interval_micros=1000000"):
        assert f"      - --{argument}\n" in text


def test_the_batching_config_of_an_earlier_export_goes_and_an_edited_one_stays(tmp_path):
    file = tmp_path / "batching.config"
    write_unless_edited(file, "max_batch_size { value: 64 }\n")
    assert write_server_config(tmp_path).keys() == FILES
    assert not file.exists()
    write_unless_edited(file, "max_batch_size { value: 64 }\n")
    edited = file.read_text().replace("64", "32")
    file.write_text(edited)
    assert write_server_config(tmp_path)["batching.config"] is Outcome.EDITED
    assert file.read_text() == edited


def test_a_server_whose_edited_command_names_batching_config_still_starts(tmp_path):
    write_unless_edited(tmp_path / "batching.config", "max_batch_size { value: 64 }\n")
    (tmp_path / "compose.yaml").write_text("command: [--batching_parameters_file=/models/batching.config]")
    write_server_config(tmp_path)
    assert "max_batch_size" in (tmp_path / "batching.config").read_text()


def arguments_with(**changed):
    """What tensorflow_model_server is started with."""
    flags = {"model_name": "student", "model_base_path": "/models/student", **changed}
    return binary_arguments("/program", ServeOptions(**{**command_line.default_flags(serve), **flags}))


def test_the_program_gets_its_limits_and_batches_only_when_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = arguments_with()
    limits = {"--grpc_max_threads=64", "--max_num_load_retries=1", "--load_retry_interval_micros=1000000"}
    assert limits <= set(arguments)
    assert "batching" not in str(arguments_with(batching_parameters_file="b"))
    added = set(arguments_with(enable_batching=True)) - set(arguments)
    assert added == {"--enable_batching=true"}
    added = set(arguments_with(enable_batching=True, batching_parameters_file="b")) - set(arguments)
    assert added == {"--enable_batching=true", f"--batching_parameters_file={tmp_path}/b"}


def test_the_program_is_told_whether_pages_of_other_sites_may_ask():
    assert "cors" not in str(arguments_with())
    assert "--rest_api_enable_cors_support=true" in arguments_with(rest_api_enable_cors_support=True)


def test_the_program_without_a_port_for_grpc_gets_the_socket_it_insists_on():
    assert not [argument for argument in arguments_with() if "socket" in argument]
    arguments = arguments_with(port=0)
    assert "--port=0" in arguments
    (path,) = [argument.partition("=")[2] for argument in arguments if argument.startswith("--grpc_socket_path=")]
    # Its place, its process, and what an address of a UNIX socket may take.
    assert path.startswith(tempfile.gettempdir())
    assert str(os.getpid()) in path
    assert len(path) < 100


def test_an_edited_file_is_left_alone_and_told(tmp_path):
    write_server_config(tmp_path)
    edited = (tmp_path / "compose.yaml").read_text().replace("unless-stopped", "always")
    (tmp_path / "compose.yaml").write_text(edited)
    outcomes = write_server_config(tmp_path, "own/image:1")
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

    write_text(tmp_path / "healthcheck.sh", HEALTHCHECK)
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
