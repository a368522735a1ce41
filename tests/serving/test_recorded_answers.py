"""What tensorflow_model_server answered to 78 requests, asked again of the server in Python."""

import json
import math
import socket
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format, message_factory, text_format
from reference_models import write_reference_models
from tensorflow_serving.apis import (
    get_model_metadata_pb2,  # noqa: F401  registers the type that metadata is packed as
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from rd_tf.serving.server.model_server import ModelServer
from rd_tf.serving.server.settings import bind, check_models
from rd_tf.serving.server.wire import read_tensor

RECORDED = json.loads((Path(__file__).parent / "data" / "recorded_answers.json").read_text())
SERVICES = [
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
]
STUBS = {
    "PredictionService": prediction_service_pb2_grpc.PredictionServiceStub,
    "ModelService": model_service_pb2_grpc.ModelServiceStub,
}
CONFIG = """
model_config_list {{
  config {{
    name: "multi" base_path: "{0}/multi" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
  }}
  config {{ name: "plain" base_path: "{0}/plain" model_platform: "tensorflow" }}
  config {{ name: "scalar" base_path: "{0}/scalar" model_platform: "tensorflow" }}
  config {{ name: "pyfn" base_path: "{0}/pyfn" model_platform: "tensorflow" }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("reference_models")
    write_reference_models(directory)
    models = check_models(text_format.Parse(CONFIG.format(directory), ModelServerConfig()), "the configuration")
    rest_socket, port = bind("127.0.0.1", 0), free_port()
    running = ModelServer(models, port=port, rest_socket=rest_socket, threads=2)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield f"http://127.0.0.1:{rest_socket.getsockname()[1]}", channel
    running.close()


def describe(case):
    return f"{case['method']} {case['path']}" if "path" in case else case["rpc"]


def agree(given, wanted):
    """Equal but for the last digits of floats, the order of keys and error texts."""
    if wanted == "<text>":
        return isinstance(given, str) and bool(given)
    if isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(agree(given[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(agree, given, wanted))
    if isinstance(wanted, float):
        same = math.isnan(wanted) and math.isnan(given)
        return same or (type(given) is float and math.isclose(given, wanted, rel_tol=1e-5, abs_tol=1e-6))
    return given == wanted and type(given) is type(wanted)


def ask_rest(url, case):
    asked = case["request"]
    body = asked if isinstance(asked, str) else json.dumps(asked)
    data = body.encode() if case["method"] == "POST" else None
    request = urllib.request.Request(url + case["path"], data, method=case["method"])
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers.get_content_type(), response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


@pytest.mark.parametrize("case", [case for case in RECORDED if "path" in case], ids=describe)
def test_rest_answers_as_recorded(server, case):
    status, kind, body = ask_rest(server[0], case)
    assert (status, kind) == (case["status"], case["ctype"])
    if kind == "application/json":
        assert agree(json.loads(body), case["body"]), body
    else:
        assert body


def plain_response(response):
    document = json_format.MessageToDict(response, preserving_proto_field_name=True)
    for name, tensor in getattr(response, "outputs", {}).items():
        field = "tensor_content" if tensor.tensor_content else "typed_val"
        array = read_tensor(tensor, 1 << 20)
        document["outputs"][name] = [array.dtype.name, array.tolist(), field]
    return document


def ask_grpc(method, request):
    try:
        return "OK", plain_response(method(request, timeout=30))
    except grpc.RpcError as error:
        return str(error.code()), error.details()


@pytest.mark.parametrize("case", [case for case in RECORDED if "rpc" in case], ids=describe)
def test_grpc_answers_as_recorded(server, case):
    service = SERVICES[0] if case["rpc"] in SERVICES[0].methods_by_name else SERVICES[1]
    stub = STUBS[service.name](server[1])
    request_type = message_factory.GetMessageClass(service.methods_by_name[case["rpc"]].input_type)
    request = json_format.ParseDict(case["request"], request_type())
    status, answer = ask_grpc(getattr(stub, case["rpc"]), request)
    assert status == case["status"]
    assert agree(answer, case["body"]), answer
