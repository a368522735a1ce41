"""Valid requests of every kind, with what must be answered."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from benchmarks.serving_requests import PredictionRequest
from rd_tf.serving.server.inference import LoadedVersion
from rd_tf.serving.server.settings import Limits

Outputs = Mapping[str, np.ndarray]
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class CheckedRequest:
    """A request as it is sent, and the check of its answer.

    Attributes:
        data: a whole HTTP request, or a serialized PredictRequest.
        is_rest: which of the two.
        is_right: whether a body, or a serialized PredictResponse, is the answer of one of the versions.
    """

    data: bytes
    is_rest: bool
    is_right: Callable[[bytes], bool]


def checked_requests(requests: Sequence[PredictionRequest], versions: Sequence[Path]) -> list[CheckedRequest]:
    """Every request by gRPC, by REST in rows and in columns; as many by gRPC as by REST.

    Args:
        requests: to any signatures.
        versions: exports, any of which may answer; they are asked in this process for what is right.
    """
    loaded = [LoadedVersion(path, number, Limits()) for number, path in enumerate(versions)]
    checked = []
    for request in requests:
        answers = [version.run(request.signature, request.fed()) for version in loaded]
        checked += _ways(request, answers)
    for version in loaded:
        version.close()
    return checked


def _ways(request: PredictionRequest, answers: Sequence[Outputs]) -> list[CheckedRequest]:
    names = list(answers[0])

    def is_right_by_rows(body: bytes) -> bool:
        rows = json.loads(body)["predictions"]
        # A single output has no name.
        found = {name: [row[name] if isinstance(row, dict) else row for row in rows] for name in names}
        return _is_one_of(found, answers)

    def is_right_by_columns(body: bytes) -> bool:
        found = json.loads(body)["outputs"]
        return _is_one_of(found if isinstance(found, dict) else {names[0]: found}, answers)

    def is_right_by_grpc(data: bytes) -> bool:
        outputs = predict_pb2.PredictResponse.FromString(data).outputs
        return _is_one_of({name: tf.make_ndarray(proto) for name, proto in outputs.items()}, answers)

    remote = CheckedRequest(request.grpc(), False, is_right_by_grpc)
    rows = CheckedRequest(request.rest(), True, is_right_by_rows)
    columns = CheckedRequest(request.rest(by_rows=False), True, is_right_by_columns)
    return [rows, remote, columns, remote]


def _is_one_of(found: Mapping[str, Any], answers: Sequence[Outputs]) -> bool:
    return any(
        found.keys() == answer.keys() and all(_is_close(found[name], wanted) for name, wanted in answer.items())
        for answer in answers
    )


def _is_close(found: Any, wanted: np.ndarray) -> bool:
    if wanted.dtype != object:
        values = np.array(found, wanted.dtype)
        return values.shape == wanted.shape and np.allclose(values, wanted, rtol=_TOLERANCE, atol=_TOLERANCE)
    texts = np.array(found, object)
    encoded = [text.encode() if isinstance(text, str) else text for text in texts.ravel()]
    return texts.shape == wanted.shape and encoded == wanted.ravel().tolist()
