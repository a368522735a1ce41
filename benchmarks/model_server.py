"""A model server in a process of its own, and requests to it from other processes."""

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np

from rd_tf.errors import InputError
from rd_tf.serving.server.server_binary import find_binary
from rd_tf.serving.signatures import QUERY, RECOMMEND, SCORE

_CHUNK = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def post(path: str, body: bytes, declared_length: int | None = None) -> bytes:
    """A whole POST request; `declared_length` stands in place of the body's own."""
    length = len(body) if declared_length is None else declared_length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    return head.encode() + b"\r\n" + body


class HttpConnection:
    """One connection, for one request at a time.

    Args:
        port: on this machine.
        timeout_seconds: of every wait for bytes.
    """

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
    """Serves a directory of versions under the name `MODEL` from two free ports.

    Args:
        base_path: parent of the version directories.
        binary: --binary of rd_tf.serve.

    Raises:
        InputError: the server ended before it was ready.
    """
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


SIGNATURES = (RECOMMEND, "recommend", SCORE, QUERY)


@dataclasses.dataclass(frozen=True)
class PredictionRequest:
    """One request.

    Attributes:
        signature: its signature.
        inputs: input name -> array; strings are objects.
    """

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
    """A request of random users with `recent` random items each.

    Args:
        signature: one of the export's.
        rows: of the request.
        user_ids: raw ids.
        item_ids: raw ids.
        recent: items of every row's history.
        k: length of the lists, or number of candidates.
        generator: draws.
    """

    def ids(names: Sequence[str], *shape: int) -> np.ndarray:
        drawn = generator.integers(0, len(names), shape)
        return np.array([names[place] for place in drawn.ravel()], object).reshape(shape)

    inputs = {"user_id": ids(user_ids, rows), "recent_items": ids(item_ids, rows, recent)}
    if signature == SCORE:
        inputs["candidates"] = ids(item_ids, rows, k)
    elif signature != QUERY:
        inputs |= {"exclude_items": ids(item_ids, rows, 1), "k": np.full(rows, k, np.int32)}
    return PredictionRequest(signature, inputs)


INTERFACES = ("rest", "grpc")
_PATIENCE_SECONDS = 120.0
_WARM_UP_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Load:
    """Who asks what.

    Attributes:
        interface: "rest" or "grpc".
        port: of that interface.
        requests: whole HTTP requests, or serialized PredictRequests; each client goes through all of them in turn.
        clients: who each have a connection and a request under way.
        seconds: how long requests begin, after a warm-up of a fifth of it.
    """

    interface: str
    port: int
    requests: Sequence[bytes]
    clients: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Latencies:
    """What clients saw.

    Attributes:
        seconds: `[n] float64`, of every request that was begun after the warm-up; each client has one at least.
        requests_per_s: answered from the end of the warm-up to the last answer.
    """

    seconds: np.ndarray
    requests_per_s: float


def measure_load(load: Load) -> Latencies:
    """Asks from as many processes as there are cores, or clients if they are fewer.

    Raises:
        InputError: a request was not answered with a result.
    """
    processes = min(load.clients, len(os.sched_getaffinity(0)))
    clients = np.array_split(np.arange(load.clients), processes)
    spawn = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for share in clients:
        mine, theirs = spawn.Pipe()
        child = spawn.Process(target=_ask, args=(theirs, load, share.tolist()), daemon=True)
        child.start()
        theirs.close()
        pipes.append(mine)
        children.append(child)
    try:
        for pipe in pipes:
            pipe.recv()
        # The clock is the same in every process.
        begin = time.monotonic() + _WARM_UP_SHARE * load.seconds
        for pipe in pipes:
            pipe.send((begin, begin + load.seconds))
        answers = [pipe.recv() for pipe in pipes]
    except EOFError:
        raise InputError("a client's process ended early, for the reason above") from None
    finally:
        for child in children:
            child.join(_PATIENCE_SECONDS)
    if errors := [answer for answer in answers if isinstance(answer, str)]:
        raise InputError(f"the server did not answer a request with a result: {errors[0]}")
    begun, ended = np.concatenate(answers, axis=1)
    measured = begun >= begin
    return Latencies((ended - begun)[measured], int((ended >= begin).sum()) / (ended.max() - begin))


def _ask(pipe: multiprocessing.connection.Connection, load: Load, clients: Sequence[int]) -> None:
    connected = threading.Barrier(len(clients) + 1)
    window: list[float] = []
    told = threading.Event()
    answers: list[np.ndarray | str] = []

    def work(client: int) -> None:
        try:
            ask, close = _connect(load)
            connected.wait()
            told.wait()
            answers.append(_ask_until(ask, load.requests, client, *window))
            close()
        # The parent says so.
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error!s:.300}")
            connected.abort()

    threads = [threading.Thread(target=work, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        connected.wait()
    pipe.send("connected")
    window += pipe.recv()
    told.set()
    for thread in threads:
        thread.join()
    errors = [answer for answer in answers if isinstance(answer, str)]
    pipe.send(errors[0] if errors else np.concatenate(answers, axis=1))


def _ask_until(
    ask: Callable[[bytes], object], requests: Sequence[bytes], first: int, begin: float, end: float
) -> np.ndarray:
    times = []
    for number in itertools.count(first):
        begun = time.monotonic()
        if begun >= end and times and times[-1][0] >= begin:
            break
        ask(requests[number % len(requests)])
        times.append((begun, time.monotonic()))
    return np.array(times).T


def _connect(load: Load) -> tuple[Callable[[bytes], object], Callable[[], None]]:
    if load.interface == "grpc":
        channel = open_channel(load.port)
        predict = channel.unary_unary(PREDICT_METHOD)
        return lambda data: predict(data, timeout=_PATIENCE_SECONDS), channel.close
    connection = HttpConnection(load.port, _PATIENCE_SECONDS)

    def post(data: bytes) -> None:
        status, body = connection.ask(data)
        if status != 200:
            raise ConnectionError(f"{status} {body[:200]!r}")

    return post, connection.close
