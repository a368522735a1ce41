"""Requests that no server may answer with a result."""

import dataclasses
import json
from collections.abc import Callable, Mapping

import grpc
import numpy as np

from benchmarks.http_connection import HttpConnection, post
from benchmarks.serving_process import MODEL, PREDICT_METHOD, PREDICT_PATH
from benchmarks.serving_requests import PredictionRequest
from rd_tf.serving.signatures import RECOMMEND, SCORE

# More than the server's --max_body_bytes.
_TOO_LONG = (16 << 20) + 1
_TOO_MANY_ROWS = 1025
DROPPED = "dropped"


@dataclasses.dataclass(frozen=True)
class Doors:
    """Where a client reaches the server.

    Attributes:
        rest_port: of REST.
        port: of gRPC.
        channel: to gRPC.
        timeout_seconds: how long an answer may take.
    """

    rest_port: int
    port: int
    channel: grpc.Channel
    timeout_seconds: float


# Sends one request and tells how it ended: an HTTP status, the name of a gRPC status or `DROPPED`.
Malformed = Callable[[Doors], str]


def malformed_requests(valid: PredictionRequest) -> dict[str, Malformed]:
    """Name -> a malformed request by REST, by gRPC or by neither.

    Args:
        valid: a request to the default signature that is right, to be spoilt; of two rows or more.
    """
    rest = {f"REST {name}": _by_rest(data) for name, data in _rest(valid).items()}
    remote = {f"gRPC {name}": _by_grpc(method, data) for name, (method, data) in _grpc(valid).items()}
    half = _by_rest(valid.rest()[:-20], is_whole=False)
    return {**rest, **remote, "REST half body": half, "gRPC garbage bytes": _no_http2}


def _rest(valid: PredictionRequest) -> dict[str, bytes]:
    row = {name: array[0].tolist() if array.ndim > 1 else array[0] for name, array in valid.inputs.items()}
    row["k"] = int(row["k"])

    def instance(**changed: object) -> bytes:
        return _body({"instances": [{**row, **changed}]})

    return {
        "unfinished JSON": post(PREDICT_PATH, b'{"instances": ['),
        "no JSON": post(PREDICT_PATH, b"user_id=1"),
        "no UTF-8": post(PREDICT_PATH, b'{"instances": ["\xff\xfe"]}'),
        "deep JSON": post(PREDICT_PATH, b"[" * 200_000),
        "JSON array": post(PREDICT_PATH, b"[]"),
        "empty body": post(PREDICT_PATH, b""),
        "nothing asked": _body({}),
        "k a string": instance(k="ten"),
        "k a fraction": instance(k=1.5),
        "k beyond int32": instance(k=2**40),
        "k beyond float64": post(PREDICT_PATH, instance().partition(b"\r\n\r\n")[2].replace(b'"k": ', b'"k": 1e999')),
        "user a number": instance(user_id=5),
        "user null": instance(user_id=None),
        "items flat": instance(recent_items="1"),
        "items ragged": _body({"instances": [row, {**row, "recent_items": []}]}),
        "input missing": _body({"instances": [{"user_id": row["user_id"]}]}),
        "input unknown": instance(other=1),
        "columns differ": _columns(valid, user_id=valid.inputs["user_id"][:1].tolist()),
        "too many rows": _body({"instances": [row] * _TOO_MANY_ROWS}),
        "signature unknown": _body({"instances": [row]}, signature_name="other"),
        "signature a number": _body({"instances": [row]}, signature_name=5),
        "model unknown": post("/v1/models/none:predict", b"{}"),
        "version unknown": post(f"/v1/models/{MODEL}/versions/999999:predict", b"{}"),
        "path unknown": post("/elsewhere", b"{}"),
        "verb unknown": post(f"/v1/models/{MODEL}:guess", b"{}"),
        "method unknown": post(PREDICT_PATH, b"{}").replace(b"POST", b"BREW", 1),
        "huge body": post(PREDICT_PATH, b" " * _TOO_LONG),
        "huge length": post(PREDICT_PATH, b"{}", declared_length=10**11),
        "length no number": post(PREDICT_PATH, b"{}").replace(b"Length: 2", b"Length: two"),
        "bad chunk": post(PREDICT_PATH, b"zz\r\n").replace(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
        "garbage bytes": b"\x00\x01\x02\xff" * 100 + b"\r\n\r\n",
    }


def _grpc(valid: PredictionRequest) -> dict[str, tuple[str, bytes]]:
    def predict(signature: str = RECOMMEND, **changed: np.ndarray) -> tuple[str, bytes]:
        return PREDICT_METHOD, PredictionRequest(signature, {**valid.inputs, **changed}).grpc()

    right, items = predict()[1], valid.inputs["recent_items"]
    ids = {"user_id": valid.inputs["user_id"], "recent_items": items}
    fewer_candidates = PredictionRequest(SCORE, {**ids, "candidates": items[:1]})
    return {
        "k float32": predict(k=valid.inputs["k"].astype(np.float32)),
        "k int64": predict(k=valid.inputs["k"].astype(np.int64)),
        "k a scalar": predict(k=np.array(3, np.int32)),
        "users numbers": predict(user_id=np.arange(len(items), dtype=np.int64)),
        "users of fewer rows": predict(user_id=valid.inputs["user_id"][:1]),
        "users of more dimensions": predict(user_id=items),
        "items flat": predict(recent_items=items.ravel()),
        "items of fewer rows": predict(recent_items=items[:1]),
        "excluded of fewer rows": predict(exclude_items=items[:1]),
        "k of fewer rows": predict(k=valid.inputs["k"][:1]),
        "candidates of fewer rows": (PREDICT_METHOD, fewer_candidates.grpc()),
        "too many rows": predict(user_id=np.full(_TOO_MANY_ROWS, "", object)),
        "input unknown": predict(other=items),
        "inputs of another signature": predict(SCORE),
        "signature unknown": predict("other"),
        "model unknown": (PREDICT_METHOD, right.replace(MODEL.encode(), b"m" * len(MODEL), 1)),
        "half message": (PREDICT_METHOD, right[: len(right) // 2]),
        "no message": (PREDICT_METHOD, b"\xff" * 50),
        "empty message": (PREDICT_METHOD, b""),
        "huge message": (PREDICT_METHOD, b"\x00" * _TOO_LONG),
        "method unknown": ("/tensorflow.serving.PredictionService/Guess", right),
    }


def _body(document: Mapping[str, object], **further: object) -> bytes:
    return post(PREDICT_PATH, json.dumps({**document, **further}).encode())


def _columns(valid: PredictionRequest, **changed: object) -> bytes:
    return _body({"inputs": {**{name: array.tolist() for name, array in valid.inputs.items()}, **changed}})


def _by_rest(data: bytes, is_whole: bool = True) -> Malformed:
    def send(doors: Doors) -> str:
        connection = HttpConnection(doors.rest_port, doors.timeout_seconds)
        try:
            connection.send(data)
            if not is_whole:
                connection.end_sending()
            return str(connection.read()[0])
        except ConnectionError:
            return DROPPED
        finally:
            connection.close()

    return send


def _by_grpc(method: str, data: bytes) -> Malformed:
    def send(doors: Doors) -> str:
        try:
            doors.channel.unary_unary(method)(data, timeout=doors.timeout_seconds)
        except grpc.RpcError as error:
            return error.code().name
        return grpc.StatusCode.OK.name

    return send


def _no_http2(doors: Doors) -> str:
    connection = HttpConnection(doors.port, doors.timeout_seconds)
    try:
        connection.send(b"\x00\x01\x02\xff" * 100)
        # The server's own greeting may come first.
        connection.read_to_end()
        return DROPPED
    except ConnectionError:
        return DROPPED
    finally:
        connection.close()
