"""Whatever is sent to a running server, it answers or hangs up, and goes on answering."""

import contextlib
import errno
import io
import json
import re
import socket
import threading
import time
from http import HTTPStatus
from unittest import mock

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig
from tiny_models import publish, write_adding_model

from rd_tf.serving.server import model_server
from rd_tf.serving.server.model_server import (
    HttpServer,
    Metrics,
    ModelServer,
    ModelService,
    PredictionService,
    RestApplication,
    start_grpc_server,
)
from rd_tf.serving.server.settings import Limits, bind

MAX_BODY, MAX_BATCH, MAX_VALUES = 10_000, 50, 1000
ROW = b'{"instances": [1.5]}'
PATHS = ["/v1/models/adding:predict", "/v1/models/adding:classify", "/v1/models/adding:regress"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    write_adding_model(root / "source", 1)
    (root / "adding").mkdir()
    publish(root / "source", root / "adding", 1)
    rest_socket = bind("127.0.0.1", 0)
    port = free_port()
    running = ModelServer(
        [ModelConfig(name="adding", base_path=str(root / "adding"))],
        port=port,
        rest_socket=rest_socket,
        threads=2,
        limits=Limits(max_body_bytes=MAX_BODY, max_batch=MAX_BATCH, max_values=MAX_VALUES),
    )
    running.address = rest_socket.getsockname()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as running.channel:
        yield running
    running.close()


def post(body, path=PATHS[0], length=None):
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode() + body


ROW_REQUEST = post(ROW)


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def send(server, data):
    """What comes back until the server hangs up, without the version of HTTP."""
    answer = b""
    with socket.create_connection(server.address, timeout=10) as connection:
        # A server that refuses a body unread resets the connection, and the answer may be lost with it.
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
    return re.sub(rb"^HTTP/1.[01] ", b"", answer)


def is_well(server):
    return send(server, post(b'{"instances": [1.5]}')).endswith(b'{"predictions": [2.5]}')


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (post(b"[" * 9000), b"400 Bad Request"),
        (post(b'{"instances": [1e999]}'), b"400 Bad Request"),
        (post(b"\xff\xfe\x00"), b"400 Bad Request"),
        (post(b""), b"400 Bad Request"),
        (post(b'{"instances": [' + b"1," * MAX_BATCH + b"1]}"), b"400 Bad Request"),
        (post(b'{"instances": [[' + b"1," * MAX_VALUES + b"1]]}"), b"400 Bad Request"),
        (post(b" " * (MAX_BODY + 1)), b"413 Request Entity Too Large"),
        (post(b"", length=10**15), b"413 Request Entity Too Large"),
        (post(b"", length="ten"), b"400 Bad Request"),
        (post(b"{}", "/v1/models/%ff%00:predict"), b"404 Not Found"),
        (post(b"{}", "/v1/models/adding/versions/99999999999999999999:predict"), b"400 Bad Request"),
        (post(b"{}", "/v1/models/adding/versions/9223372036854775808:predict"), b"400 Bad Request"),
        (post(b"{}", f"/v1/models/adding/versions/{'9' * 5000}:predict"), b"400 Bad Request"),
        (post(ROW, "/v1/models/adding/versions/9223372036854775807:predict"), b"404 Not Found"),
        (get("/v1/models/adding/versions/1000000000000000000"), b"404 Not Found"),
        (post(ROW, "/v1/models/adding:predict?a=1"), b"400 Bad Request"),
        (get("/v1/models/adding/metadata?a=1"), b"400 Bad Request"),
        (get("/v1/models/adding?a=1"), b"404 Not Found"),
        (get("/monitoring/prometheus/metrics?a=1"), b"200 OK"),
        (post(ROW, "//v1/models/adding:predict"), b"404 Not Found"),
        (get("//v1/models/adding"), b"404 Not Found"),
        (post(ROW, "/V1/MODELS/ADDING:PREDICT"), b"400 Bad Request"),
        (post(ROW, "/v1/models/adding:Predict"), b"400 Bad Request"),
        (get("/V1/MODELS/ADDING"), b"404 Not Found"),
        (post(ROW + b"} and more"), b"200 OK"),
        (post(ROW, "/V1/Models/adding/VERSIONS/0001:predict"), b"200 OK"),
        (post(b"{}", "/" + "a" * 5000), b"404 Not Found"),
        (b"BREW /v1/models/adding HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400 Bad Request"),
        (b"no http at all\r\n\r\n", b"400 Bad Request"),
        (post(b'{"instances": [1', length=500), b""),
        (
            b"POST " + PATHS[0].encode() + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
            b"400 Bad Request",
        ),
        (
            b"POST "
            + PATHS[0].encode()
            + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            b"400 Bad Request",
        ),
        (
            b"POST " + PATHS[0].encode() + b" HTTP/1.0\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            b"400 Bad Request",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
    ],
)
def test_a_malformed_request_is_answered_or_dropped(server, data, answer):
    received = send(server, data)
    if received or not answer.startswith(b"413"):
        assert received.startswith(answer)
        assert bool(received) == bool(answer), received
    assert b"Traceback" not in received
    assert is_well(server)


def test_a_body_in_chunks_is_read(server):
    head = f"POST {PATHS[0]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert send(server, head + b'e\r\n{"instances": \r\n6\r\n[1.5]}\r\n0\r\n\r\n').endswith(b'{"predictions": [2.5]}')


def test_silent_connections_do_not_keep_others_out(server):
    silent = [socket.create_connection(server.address) for _ in range(20)]
    for connection in silent:
        connection.sendall(b"POST /v1/models/adding:predict HTTP/1.1\r\nContent-Le")
    assert is_well(server)
    for connection in silent:
        connection.close()


def test_values_are_counted_before_they_are_converted(server):
    body = json.dumps({"signature_name": "echo", "instances": [[None] * (MAX_VALUES + 1)]}).encode()
    message = "input text holds 1,001 values; at most 1,000 are allowed (--max_values)"
    assert json.loads(call(server, "POST", PATHS[0], body)[1]) == {"error": message}


@pytest.fixture
def crowded(server, monkeypatch):
    """Another HTTP server for the same models, which keeps 10 connections and gives a request half a second."""
    settings = {"_CONNECTIONS": 10, "_REQUEST_SECONDS": 0.5, "_ANSWER_SECONDS": 0.5, "_SECONDS_BETWEEN_LOOKS": 0.1}
    settings["_FRESH_SECONDS"] = 60
    for name, value in settings.items():
        monkeypatch.setattr(model_server, name, value)
    listening = bind("127.0.0.1", 0)
    address = listening.getsockname()
    running = HttpServer(RestApplication(server.store, Metrics()), listening, 1, MAX_BODY)
    running.address = address
    yield running
    running.close(1)


@pytest.mark.parametrize("begun", [b"", b"POST /v1/models/adding:predict HTTP/1.1\r\nContent-Le"])
def test_more_idle_or_half_open_connections_than_are_kept_keep_nobody_out(crowded, begun, monkeypatch):
    monkeypatch.setattr(model_server, "_REQUEST_SECONDS", 60)
    silent = [socket.create_connection(crowded.address, timeout=10) for _ in range(200)]
    for connection in silent:
        # The server may have closed it by now.
        with contextlib.suppress(OSError):
            connection.sendall(begun)
    assert is_well(crowded)
    # Nor one that takes a moment before it asks.
    with socket.create_connection(crowded.address, timeout=10) as newcomer:
        time.sleep(0.2)
        newcomer.sendall(ROW_REQUEST)
        assert newcomer.recv(65536).startswith(b"HTTP/1.1 200 OK")
    # The oldest are closed first.
    assert silent[0].recv(1) == b""
    for connection in silent:
        connection.close()


def test_idle_connections_make_room_before_half_open_ones(crowded, monkeypatch):
    monkeypatch.setattr(model_server, "_REQUEST_SECONDS", 60)
    half_open = socket.create_connection(crowded.address, timeout=10)
    half_open.sendall(ROW_REQUEST[:20])
    time.sleep(0.1)
    idle = [socket.create_connection(crowded.address, timeout=10) for _ in range(30)]
    assert is_well(crowded)
    half_open.sendall(ROW_REQUEST[20:])
    assert half_open.recv(65536).startswith(b"HTTP/1.1 200 OK")
    for connection in [half_open, *idle]:
        connection.close()


def test_a_request_that_comes_in_drop_by_drop_is_given_up(crowded):
    with socket.create_connection(crowded.address, timeout=10) as connection:
        sent = 0
        # A connection that the server has closed is reset, or its pipe is broken.
        with contextlib.suppress(OSError):
            for byte in ROW_REQUEST:
                sent += connection.send(bytes([byte]))
                time.sleep(0.05)
        assert sent < len(ROW_REQUEST)
    assert is_well(crowded)


def test_an_answer_that_is_not_taken_is_given_up(crowded):
    long_answer = HTTPStatus.OK, "text/plain", b"x" * 40_000_000
    with socket.create_connection(crowded.address, timeout=10) as connection:
        with mock.patch.object(RestApplication, "_answer", return_value=long_answer):
            connection.sendall(get("/v1/models/adding"))
            assert connection.recv(1)
        # The answer holds the only thread, so the next request waits until it is given up.
        assert is_well(crowded)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HEAD /v1/models/adding HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"400 Bad Request"),
        (b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404 Not Found"),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_head_has_no_body(server, data, status):
    answer = send(server, data)
    assert answer.startswith(status)
    assert answer.partition(b"\r\n\r\n")[2] == b""
    assert re.search(rb"Content-Length: [1-9]", answer)


def preflight(origin, path="/v1/models/adding:predict"):
    return f"OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{origin}\r\n".encode()


def test_answers_say_that_pages_of_other_sites_may_read_them_where_asked_to(server):
    application = RestApplication(server.store, Metrics(), cors=True)
    listening = bind("127.0.0.1", 0)
    address = listening.getsockname()
    running = HttpServer(application, listening, 1, MAX_BODY)
    running.address = address
    allowed = send(running, preflight("Origin: http://page\r\n"))
    assert allowed.startswith(b"200 OK")
    refused = send(running, preflight(""))
    assert refused.startswith(b"400 Bad Request")
    asked = send(running, post(ROW))
    wrong = send(running, post(b"{}"))
    for answer in (allowed, refused, asked, wrong):
        assert b"Access-Control-Allow-Origin: *\r\n" in answer
        assert b"Access-Control-Allow-Methods: POST, GET\r\n" in answer
        assert b"Access-Control-Allow-Headers: Content-Type\r\n" in answer
    assert b"Access-Control" not in send(running, get("/monitoring/prometheus/metrics"))
    running.close(1)
    # Else a preflight is answered too, as tensorflow_model_server does, but allows nothing.
    assert send(server, preflight("Origin: https://page\r\n")).startswith(b"200 OK")
    assert b"Access-Control" not in send(server, post(ROW)) + send(server, preflight("Origin: https://page\r\n"))


def call(server, method, path, body):
    """Asks the application itself, below the HTTP server."""
    said = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body)}
    answer = b"".join(RestApplication(server.store, Metrics())(environ, lambda *given: said.append(given)))
    return int(said[0][0].split()[0]), answer


@given(st.sampled_from(PATHS), st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_body_is_an_error_of_the_client(server, path, body):
    status, answer = call(server, "POST", path, body)
    assert status == 400
    assert json.loads(answer)["error"]


@given(st.sampled_from(["GET", "POST", "PUT", "HEAD"]), st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_path_is_answered(server, method, path):
    for prefix in ("/", "/v1/", "/v1/models/", "/v1/models/adding/"):
        assert call(server, method, prefix + path, b"")[0] in {200, 400, 404}


def test_upper_case_metadata_is_the_status(server):
    assert "model_version_status" in json.loads(call(server, "GET", "/v1/models/adding/METADATA", b"")[1])
    assert "metadata" in json.loads(call(server, "GET", "/v1/models/adding/metadata", b"")[1])


def test_an_output_that_is_asked_for_twice_is_refused(server):
    request = predict_pb2.PredictRequest(model_spec=ModelSpec(name="adding"), output_filter=["y", "y"])
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=1, float_val=[1.0], tensor_shape={"dim": [{"size": 1}]}))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)
    with pytest.raises(grpc.RpcError, match="names an output twice") as caught:
        stub.Predict(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_come_back_as_base64_and_strings_as_they_are(server):
    body = b'{"signature_name": "echo", "instances": [{"b64": "w6k="}]}'
    assert json.loads(call(server, "POST", PATHS[0], body)[1]) == {
        "predictions": [{"text": "é", "text_bytes": {"b64": "w6k="}}]
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtype": 1, "float_val": [1.0], "tensor_shape": {"dim": [{"size": 1 << 40}]}}, "takes more than 10000 bytes"),
        ({"dtype": 1, "float_val": [1.0], "tensor_shape": {"dim": [{"size": -1}]}}, "must be fully known"),
        ({"dtype": 1, "tensor_shape": {"unknown_rank": True}}, "must be fully known"),
        ({"dtype": 1, "tensor_content": b"abc", "tensor_shape": {"dim": [{"size": 1}]}}, "cannot be read"),
        ({"dtype": 1, "float_val": [1.0, 2.0], "tensor_shape": {"dim": [{"size": 1}]}}, "cannot be read"),
        ({"dtype": 999}, "is unknown"),
        ({"dtype": 1, "float_val": [1.0], "tensor_shape": {"dim": [{"size": 51}]}}, "51 rows; at most 50"),
        (
            {"dtype": 1, "float_val": [1.0], "tensor_shape": {"dim": [{"size": 7}, {"size": 143}]}},
            r"shape \[7, 143\] holds 1,001 values; at most 1,000 are allowed \(--max_values\)",
        ),
        ({"dtype": 2, "double_val": [1.0], "tensor_shape": {"dim": [{"size": 1}]}}, "must be float32, not float64"),
    ],
)
def test_a_tensor_that_is_none_is_refused_by_message(server, given, message):
    request = predict_pb2.PredictRequest(model_spec=ModelSpec(name="adding"))
    request.inputs["x"].CopyFrom(tensor_pb2.TensorProto(**given))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)
    with pytest.raises(grpc.RpcError, match=message) as caught:
        stub.Predict(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_beyond_the_limit_is_refused(server):
    request = predict_pb2.PredictRequest(model_spec=ModelSpec(name="a" * MAX_BODY))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(server.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_calls_that_never_send_their_message_are_given_up(server, monkeypatch):
    monkeypatch.setattr(model_server, "_CONNECTION_SECONDS", 1)
    port = free_port()
    services = PredictionService(server.store, Metrics()), ModelService(server.store, Metrics())
    running = start_grpc_server(*services, "127.0.0.1", port, 1, Limits(request_timeout_seconds=1))
    never = threading.Event()
    method = "/tensorflow.serving.PredictionService/Predict"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as holding, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        held = holding.stream_unary(method).future(iter(never.wait, None), wait_for_ready=True)
        time.sleep(0.5)
        request = predict_pb2.PredictRequest(model_spec=ModelSpec(name="adding"))
        request.inputs["x"].CopyFrom(
            tensor_pb2.TensorProto(dtype=1, float_val=[1], tensor_shape={"dim": [{"size": 1}]})
        )
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=0.5)
        # The only thread is held until the connection of the silent call ends.
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert isinstance(held.exception(timeout=30), grpc.RpcError)
        assert stub.Predict(request, timeout=30).outputs["y"].float_val == [2.0]
        never.set()
    running.stop(None).wait()


def test_a_message_that_is_no_proto_is_refused_without_a_traceback_in_the_log(server, caplog):
    with pytest.raises(grpc.RpcError) as caught:
        server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(b"\xff" * 50)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert not caplog.records


def test_metrics_count_by_model_and_do_not_grow_with_names_asked_for(server):
    def ask():
        call_path = "/v1/models/adding:predict"
        send(server, post(b'{"instances": [1]}', call_path))
        send(server, post(b"{}", "/v1/models/someone-elses:predict"))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = send(server, b"GET /monitoring/prometheus/metrics HTTP/1.1\r\nConnection: close\r\n\r\n").decode()
    assert ':tensorflow:serving:request_count_total{model_name="adding",status="OK"}' in text
    assert "someone-elses" not in text
