"""A model server in a process of its own, and what it uses of the machine."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from benchmarks.http_connection import HttpConnection
from rd_tf.serving.server.settings import find_binary
from rd_tf.storage import InputError

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
