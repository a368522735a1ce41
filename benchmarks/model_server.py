"""A model server in a process of its own, connections to it, and requests with what must be answered."""

import contextlib
import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from rd_tf.serving.server.settings import find_binary
from rd_tf.storage import InputError

_CHUNK = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def post(path: str, body: bytes, declared_length: int | None = None) -> bytes:
    """A whole POST request; `declared_length` stands in place of the body's own."""
    length = len(body) if declared_length is None else declared_length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    return head.encode() + b"\r\n" + body


class HttpConnection:
    """One connection to a port of this machine, for one request at a time."""

    def __init__(self, port: int, timeout_seconds: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Sends bytes and reads an answer with a Content-Length: its status and body.

        Raises:
            ConnectionError: the server closed the connection before a whole answer.
            TimeoutError: it neither answered nor closed.
        """
        self.send(request)
        return self.read()

    def send(self, data: bytes) -> None:
        """The first half of `ask`."""
        self._socket.sendall(data)

    def end_sending(self) -> None:
        """Tells the server that no more bytes will come."""
        self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> tuple[int, bytes]:
        """The second half of `ask`."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        head, parts = data[:end], [data[end + 4 :]]
        found = _LENGTH.search(head)
        if found is None:
            raise ConnectionError(f"an answer without Content-Length: {head[:100]!r}")
        missing = int(found[1]) - len(parts[0])
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        return int(head.split(b" ", 2)[1]), b"".join(parts)

    def read_to_end(self) -> int:
        """How many bytes come until the server closes the connection."""
        count = 0
        try:
            while True:
                count += len(self._receive())
        except ConnectionError:
            return count

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


MODEL = "model"
PREDICT_PATH = f"/v1/models/{MODEL}:predict"
PREDICT_METHOD = "/tensorflow.serving.PredictionService/Predict"
_ROOT = Path(__file__).parents[1]
_START_SECONDS, _STOP_SECONDS = 600, 90
_LOOK_SECONDS = 0.05


class ServingProcess:
    """A server that is ready.

    Attributes:
        port: of gRPC.
        rest_port: of REST.
        program: what serves: rd_tf.serve, or the path of tensorflow_model_server.
    """

    def __init__(self, process: subprocess.Popen, port: int, rest_port: int, log: Path, program: str) -> None:
        self._process, self._log = process, log
        self.port, self.rest_port, self.program = port, rest_port, program

    @property
    def resident_bytes(self) -> int:
        """Memory in use now."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

    @property
    def open_files(self) -> int:
        """Open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/fd").iterdir())

    @property
    def threads(self) -> int:
        """Threads."""
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/task").iterdir())

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def log(self) -> str:
        """What the server wrote on its standard error."""
        return self._log.read_text(errors="replace")

    def stop(self) -> int:
        """Asks it to end by SIGTERM; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP_SECONDS)

    def statuses(self) -> dict[int, str]:
        """Version -> state."""
        connection = HttpConnection(self.rest_port, _STOP_SECONDS)
        try:
            _, body = connection.ask(f"GET /v1/models/{MODEL} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        finally:
            connection.close()
        found = json.loads(body).get("model_version_status", [])
        return {int(status["version"]): status["state"] for status in found}


def open_channel(port: int) -> grpc.Channel:
    """A connection of its own to gRPC; a context manager."""
    # Channels to one address share a connection otherwise.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[*options, ("grpc.max_receive_message_length", -1)])


@contextlib.contextmanager
def serving_process(base_path: Path, binary: str = "never") -> Iterator[ServingProcess]:
    """Serves a directory of versions under the name `MODEL` from two free ports; `binary` as in rd_tf.serve."""
    port, rest_port = _free_ports()
    arguments = [f"--model_name={MODEL}", f"--model_base_path={base_path}", f"--binary={binary}"]
    arguments += [f"--port={port}", f"--rest_api_port={rest_port}"]
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        with open(log, "wb") as errors:
            command = [sys.executable, "-m", "rd_tf.serve", *arguments]
            process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        server = ServingProcess(process, port, rest_port, log, find_binary(binary) or "rd_tf.serve")
        try:
            _wait_until_available(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_available(server: ServingProcess) -> None:
    # The line `ready: ...` is rd_tf.serve's alone.
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and not server.has_ended:
        with contextlib.suppress(OSError, ValueError):
            if "AVAILABLE" in server.statuses().values():
                return
        time.sleep(_LOOK_SECONDS)
    raise InputError(f"{server.program} did not become ready: {server.log()[-500:].strip() or 'it said nothing'}")


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


# The signatures of an export; `rd_tf.serving.signatures`, which names them, imports TensorFlow.
RECOMMEND, SCORE, QUERY = "serving_default", "score", "query"
SIGNATURES = (RECOMMEND, "recommend", SCORE, QUERY)
Outputs = Mapping[str, np.ndarray]
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class PredictionRequest:
    """A request to a signature: input name -> array; strings are objects."""

    signature: str
    inputs: Mapping[str, np.ndarray]

    def rest(self, by_rows: bool = True) -> bytes:
        """A whole HTTP request, with `instances` or with `inputs`."""
        columns = {name: array.tolist() for name, array in self.inputs.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        body = {"instances": rows} if by_rows else {"inputs": columns}
        return post(PREDICT_PATH, json.dumps({"signature_name": self.signature, **body}).encode())

    def grpc(self) -> bytes:
        """A serialized PredictRequest."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = MODEL, self.signature
        for name, array in self.inputs.items():
            dtype = tf.string if array.dtype == object else array.dtype
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=dtype, shape=array.shape))
        return request.SerializeToString()

    def fed(self) -> dict[str, np.ndarray]:
        """The inputs as `LoadedVersion.run` takes them."""
        encode = np.vectorize(str.encode, otypes=[object])
        return {name: encode(array) if array.dtype == object else array for name, array in self.inputs.items()}


def random_request(
    signature: str,
    rows: int,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    recent: int,
    k: int,
    generator: np.random.Generator,
) -> PredictionRequest:
    """A request of random users with `recent` random items each; `k` is the length of the lists or candidates."""

    def ids(names: Sequence[str], *shape: int) -> np.ndarray:
        drawn = generator.integers(0, len(names), shape)
        return np.array([names[place] for place in drawn.ravel().tolist()], np.object_).reshape(shape)

    inputs = {"user_id": ids(user_ids, rows), "recent_items": ids(item_ids, rows, recent)}
    if signature == SCORE:
        inputs["candidates"] = ids(item_ids, rows, k)
    elif signature != QUERY:
        inputs |= {"exclude_items": ids(item_ids, rows, 1), "k": np.full(rows, k, np.int32)}
    return PredictionRequest(signature, inputs)


@dataclasses.dataclass(frozen=True)
class CheckedRequest:
    """A request as it is sent, by REST or gRPC, and the check of its answer, a body or a serialized PredictResponse."""

    data: bytes
    is_rest: bool
    is_right: Callable[[bytes], bool]


def checked_requests(requests: Sequence[PredictionRequest], exports: Sequence[Path]) -> list[CheckedRequest]:
    """Every request by gRPC, by REST in rows and in columns; as many by gRPC as by REST.

    Args:
        requests: to any signatures.
        exports: versions, any of which may answer; they are asked in this process for what is right.
    """
    from rd_tf.serving.server.inference import LoadedVersion
    from rd_tf.serving.server.settings import Limits

    loaded = [LoadedVersion(path, number, Limits()) for number, path in enumerate(exports)]
    checked = []
    for request in requests:
        answers = [version.run(request.signature, request.fed()) for version in loaded]
        checked += _ways(request, answers)
    for version in loaded:
        version.close()
    return checked


def _ways(request: PredictionRequest, answers: Sequence[Outputs]) -> list[CheckedRequest]:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

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
