"""A model server under valid and malformed requests while versions change: python -m benchmarks.soak --requests=200000.

Two small exports with different weights are published in turn, every --switch_seconds, into a directory that a server
watches and in which two versions are kept. Meanwhile --soak_clients threads send requests, half by REST and half by
gRPC, to all signatures; every answer must be that of one of the two exports. Every hundredth request is malformed
(`benchmarks.malformed_requests`, all kinds in turn): it must be answered with an error or its connection dropped.

Other bounds: the median of the server's resident memory over the last tenth of the requests is at most --most_growth
percent above that over the second half of the first tenth (before that it warms up), the median number of its file
descriptors at most ten higher; no traceback in its log; the last version is served in the end, and SIGTERM ends the
server with code 0. The command ends with 1 and says which bound is broken.

Counted figures: docs/serving_load.md.
"""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import flags
from benchmarks.harness import Report, check_output, measure_machine, significant
from benchmarks.http_connection import HttpConnection
from benchmarks.serving_process import PREDICT_METHOD, ServingProcess, open_channel, serving_process
from rd_tf.runtime import import_quietly
from rd_tf.serving.publishing import publishing, versions
from rd_tf.storage import InputError

if TYPE_CHECKING:
    from benchmarks.checked_requests import CheckedRequest
    from benchmarks.malformed_requests import Doors, Malformed
    from benchmarks.serving_requests import PredictionRequest
    from benchmarks.soak_counts import SoakCounts

_DIM, _MAX_K = 16, 20
_USERS, _ITEMS = [f"user-{user}" for user in range(200)], [f"item-{item}" for item in range(500)]
_ROWS, _K = (1, 3, 8), 5
_KEEP_VERSIONS = 2
_MALFORMED_EVERY = 100
_PATIENCE_SECONDS = 60.0
_SAMPLE_SECONDS = 0.2


def soak(
    *, requests: int, soak_clients: int, switch_seconds: float, most_growth: float, seed: int, binary: str, output: str
) -> None:
    """Sends valid and malformed requests to a model server while versions change, and checks that it stays as it is.

    Exit code 1: a valid request failed, a malformed one did not, or memory, file descriptors, log or versions of the
    server are not what they should be.
    """
    check_output(output)
    import_quietly()
    import tensorflow as tf

    from benchmarks.soak_counts import check_bounds

    # That its loader is deprecated.
    tf.get_logger().setLevel("ERROR")

    report = Report("soak", measure_machine(), output)
    with tempfile.TemporaryDirectory() as directory:
        sources = make_exports(Path(directory) / "sources", seed)
        record = soak_exports(sources, requests, soak_clients, switch_seconds, seed, binary)
    report.add_record({"benchmark": "soak", "case": f"{requests:,} requests", **record})
    report.finish()
    check_bounds(record, most_growth)


def make_exports(directory: Path, seed: int) -> list[Path]:
    """Two versions of a small export with different weights."""
    from rd_tf.models.caser import Caser
    from rd_tf.serving.export import export_ranker
    from rd_tf.serving.options import ExportOptions

    models = [Caser(len(_USERS), len(_ITEMS), 5, _DIM, seed=seed + version) for version in range(2)]
    return [export_ranker(model, _USERS, _ITEMS, directory, ExportOptions(max_k=_MAX_K)) for model in models]


def soak_exports(
    sources: Sequence[Path], requests: int, clients: int, switch_seconds: float, seed: int, binary: str
) -> dict[str, Any]:
    """Serves exports in turn and asks.

    Args:
        sources: what `make_exports` made.
        requests: valid and malformed ones.
        clients: threads that ask.
        switch_seconds: between two versions.
        seed: of the requests.
        binary: --binary of rd_tf.serve.

    Returns:
        The counts, for `check_bounds`.
    """
    from benchmarks.checked_requests import checked_requests
    from benchmarks.malformed_requests import Doors, malformed_requests
    from benchmarks.soak_counts import SoakCounts

    asked = _random_requests(seed)
    valid, malformed = checked_requests(asked, sources), malformed_requests(asked[1])
    counts = SoakCounts(requests)
    with contextlib.ExitStack() as stack:
        base_path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        _publish(sources[0], base_path)
        server = stack.enter_context(serving_process(base_path, binary))
        channels = [stack.enter_context(open_channel(server.port)) for _ in range(clients)]
        doors = [Doors(server.rest_port, server.port, channel, _PATIENCE_SECONDS) for channel in channels]
        threads = [threading.Thread(target=_Client(each, valid, malformed, counts).work) for each in doors]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        published = _watch(server, counts, threads, sources, base_path, switch_seconds)
        seconds = time.monotonic() - begin
        return {
            "server": server.program,
            "seconds": round(seconds, 1),
            "requests_per_s": significant(requests / seconds),
            "versions": published,
            **counts.record(),
            "last_version_served": _serves(server, int(versions(base_path)[-1].name)),
            "tracebacks": server.log().count("Traceback"),
            "exit_code": server.stop(),
        }


class _Client:
    def __init__(
        self,
        doors: "Doors",
        valid: "Sequence[CheckedRequest]",
        malformed: "Mapping[str, Malformed]",
        counts: "SoakCounts",
    ) -> None:
        self._doors, self._counts = doors, counts
        self._valid, self._malformed = valid, [*malformed.items()]
        self._predict = doors.channel.unary_unary(PREDICT_METHOD)
        self._connection: HttpConnection | None = None

    def work(self) -> None:
        while (number := self._counts.next()) < self._counts.requests:
            if number % _MALFORMED_EVERY:
                self._ask(self._valid[number % len(self._valid)])
                continue
            kind, send = self._malformed[number // _MALFORMED_EVERY % len(self._malformed)]
            try:
                self._counts.add_malformed(kind, send(self._doors))
            # No answer at all, for one.
            except Exception as error:
                self._counts.add_malformed(kind, type(error).__name__)
        if self._connection:
            self._connection.close()

    def _ask(self, request: "CheckedRequest") -> None:
        try:
            status, answer = self._by_rest(request.data) if request.is_rest else (200, self._by_grpc(request.data))
            if status == 200 and request.is_right(answer):
                self._counts.add_right()
            else:
                self._counts.add_failed(f"{status} {answer[:200]!r}")
        # Whatever happens to a valid request is what this benchmark looks for.
        except Exception as error:
            self._connection = None
            self._counts.add_failed(f"{type(error).__name__}: {error!s:.200}")

    def _by_rest(self, data: bytes) -> tuple[int, bytes]:
        self._connection = self._connection or HttpConnection(self._doors.rest_port, _PATIENCE_SECONDS)
        return self._connection.ask(data)

    def _by_grpc(self, data: bytes) -> bytes:
        return self._predict(data, timeout=_PATIENCE_SECONDS)


def _random_requests(seed: int) -> "list[PredictionRequest]":
    from benchmarks.serving_requests import SIGNATURES, random_request

    generator = np.random.default_rng(seed)
    # Some users and items that nobody knows, and none.
    users, items = [*_USERS, "nobody"], [*_ITEMS, "nothing", ""]
    asked = [(signature, rows) for signature in SIGNATURES for rows in _ROWS]
    return [random_request(signature, rows, users, items, 2 * rows, _K, generator) for signature, rows in asked]


def _watch(
    server: ServingProcess,
    counts: "SoakCounts",
    threads: Sequence[threading.Thread],
    sources: Sequence[Path],
    base_path: Path,
    switch_seconds: float,
) -> int:
    """Publishes and takes samples until all requests have ended; how many versions there were."""
    published, due = 1, time.monotonic() + switch_seconds
    while any(thread.is_alive() for thread in threads):
        if server.has_ended:
            raise InputError(f"the server ended by itself: {server.log()[-500:].strip() or 'it said nothing'}")
        counts.samples.append((counts.done, server.resident_bytes, server.open_files, server.threads))
        if time.monotonic() >= due:
            _publish(sources[published % len(sources)], base_path)
            published, due = published + 1, time.monotonic() + switch_seconds
        time.sleep(_SAMPLE_SECONDS)
    return published


def _publish(source: Path, base_path: Path) -> None:
    with publishing(base_path, _KEEP_VERSIONS) as new:
        shutil.copytree(source, new.directory, dirs_exist_ok=True)


def _serves(server: ServingProcess, version: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if server.statuses().get(version) == "AVAILABLE":
            return True
        time.sleep(_SAMPLE_SECONDS)
    return False


if __name__ == "__main__":
    flags.run(soak)
