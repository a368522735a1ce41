"""Requests per second and latencies of exports behind a model server: python -m benchmarks.serving.

Casers with random weights are exported, each is served by a process of its own (`python -m rd_tf.serve`, or
tensorflow_model_server where --binary finds it), and clients in other processes ask `serving_default` for 10 items,
each with one request under way: cases `<export> <interface> b=<rows a request> c=<clients>`. Requests are random users
with 20 random items. Exports take turns within a repeat, so that they meet the machine in the same state.

    teacher          d = 100, 13,149 users and 14,009 items, float32
    student          d = 50
    student_int8     the same, --weights=int8
    student_batching the same as student, --batching
    d128             d = 128, float32, a teacher's size; these six with --items above 200,000
    d64              d = 64
    d64_float16      --weights=float16
    d64_int8         --weights=int8
    d64_batching     --batching
    d64_clusters     --index=clusters --probes=16

--run_dirs measures finished runs in their place.

Floor, in every row: the same requests, as arrays, answered one at a time by the same graph in this process, taken just
before; its median. The export's warm-up requests were replayed there as servers replay them. It has no HTTP, JSON,
protos, threads or other clients. *Share of floor* is the requests a second
times the floor: 1 would be a server that costs nothing and works on one request at a time. What lies between is the
Python of the interface (parsing and writing JSON or protos, one thread at a time), the system's way from process to
process and, on few cores, the clients. More than 1 takes several cores.

p50 and p99 are of what a client waits, so with several clients their requests' waiting for each other is in it; MB is
the server's resident memory afterwards.

Measured figures and the gap: docs/serving_load.md.
"""

import contextlib
import dataclasses
import gc
import itertools
import multiprocessing
import multiprocessing.connection
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.model_server import (
    PREDICT_METHOD,
    RECOMMEND,
    HttpConnection,
    PredictionRequest,
    ServingProcess,
    open_channel,
    random_request,
    serving_process,
)
from benchmarks.report import (
    Report,
    check_cases,
    check_output,
    flag,
    measure_machine,
    run_benchmark,
    significant,
    whole_numbers,
)
from rd_tf.runtime import import_quietly
from rd_tf.storage import InputError

# d and the options of an export.
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "teacher": (100, {}),
    "student": (50, {}),
    "student_int8": (50, {"weights": "int8"}),
    "student_batching": (50, {"batching": True}),
}
LARGE_CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "d128": (128, {}),
    "d64": (64, {}),
    "d64_float16": (64, {"weights": "float16"}),
    "d64_int8": (64, {"weights": "int8"}),
    "d64_batching": (64, {"batching": True}),
    "d64_clusters": (64, {"index": "clusters", "probes": 16}),
}
_LARGE = 200_000
_DIFFERENT_REQUESTS = 64
_K, _RECENT = 10, 20
_FLOOR_SHARE = 0.2
_MB = 1e6
INTERFACES = ("rest", "grpc")
_PATIENCE_SECONDS = 120.0
_WARM_UP_SHARE = 0.2


def serving(
    *,
    cases: list[str],
    items: int,
    users: int,
    run_dirs: list[str],
    dataset: str,
    clients: list[str],
    rows: list[str],
    seconds: float,
    repeats: int,
    binary: str,
    seed: int,
    output: str,
) -> None:
    """Measures a model server with exports of random weights, by REST and gRPC, beside the same graph without a server.

    Cases: teacher, student, student_int8, student_batching; with --items above 200,000: d128, d64, d64_float16,
    d64_int8, d64_batching, d64_clusters. A measurement takes --seconds and a warm-up of a fifth of it; --repeats of
    them are taken in turn with those of the other exports.
    """
    known = LARGE_CASES if items > _LARGE else CASES
    chosen = check_cases(cases, list(known))
    numbers_of_clients, numbers_of_rows = whole_numbers("clients", clients), whole_numbers("rows", rows)
    check_output(output)
    import_quietly()
    import tensorflow as tf

    # That its loader is deprecated.
    tf.get_logger().setLevel("ERROR")
    report = Report("serving", measure_machine(), output)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if run_dirs:
            exports = [export_run(run_dir, dataset, directory) for run_dir in run_dirs]
        else:
            exports = [export_random(name, *known[name], users, items, seed, directory) for name in chosen]
        subjects = [
            _Subject(export, stack.enter_context(serving_process(export.version.parent, binary))) for export in exports
        ]
        for rows_, interface, clients_ in itertools.product(numbers_of_rows, INTERFACES, numbers_of_clients):
            for record in measure_in_turn(subjects, interface, rows_, clients_, seconds, repeats, seed):
                report.add_record(record)
    report.finish()


@dataclasses.dataclass(frozen=True)
class ServedExport:
    """An export on disk: the case's name, the version's directory, and the raw ids that it knows."""

    name: str
    version: Path
    user_ids: Sequence[str]
    item_ids: Sequence[str]

    @property
    def bytes(self) -> int:
        """Size of the version."""
        return sum(file.stat().st_size for file in self.version.rglob("*") if file.is_file())


def export_random(
    name: str, dim: int, options: dict[str, Any], users: int, items: int, seed: int, directory: Path
) -> ServedExport:
    """Exports a Caser with the paper's settings and random weights."""
    from rd_tf.models.caser import Caser
    from rd_tf.serving.export import export_ranker
    from rd_tf.serving.publishing import ExportOptions

    ids = [str(user) for user in range(users)], [str(item) for item in range(items)]
    model = Caser(users, items, 5, dim, seed=seed)
    version = export_ranker(model, *ids, directory / name, ExportOptions(**options))
    # A catalogue of a million is some GB of copies, which would stand beside the servers.
    del model
    gc.collect()
    return ServedExport(name, version, *ids)


def export_run(run_dir: str, dataset: str, directory: Path) -> ServedExport:
    """Exports a finished run in float32; its case is called after the last part of its path.

    Raises:
        InputError: no finished run, or of another dataset.
    """
    from rd_tf import run_directory
    from rd_tf.data.dataset import check_same_dataset, load_dataset
    from rd_tf.models.registry import load_model
    from rd_tf.serving.export import export_ranker
    from rd_tf.serving.publishing import ExportOptions

    manifest = run_directory.load_run_manifest(run_dir)
    check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", run_dir)
    data = load_dataset(dataset)
    name, ids = Path(run_dir).absolute().name, (data.user_ids, data.item_ids)
    return ServedExport(name, export_ranker(load_model(run_dir), *ids, directory / name, ExportOptions()), *ids)


@dataclasses.dataclass(frozen=True)
class Load:
    """Whole HTTP requests or serialized PredictRequests, all of which each client goes through in turn."""

    interface: str
    port: int
    requests: Sequence[bytes]
    clients: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Latencies:
    """Seconds of every request that was begun after the warm-up, and requests answered a second."""

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
    times: list[tuple[float, float]] = []
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


class _Subject:
    """An export, its server and the same graph in this process."""

    def __init__(self, export: ServedExport, server: ServingProcess) -> None:
        from rd_tf.serving.server.inference import LoadedVersion, replay_warmup
        from rd_tf.serving.server.settings import Limits

        self.export, self.server = export, server
        self.version = LoadedVersion(export.version, 1, Limits())
        # What the server has seen before its first request may change how fast a graph is.
        replay_warmup(self.version, Path(export.version), Limits())


def measure_in_turn(
    subjects: Sequence[_Subject], interface: str, rows: int, clients: int, seconds: float, repeats: int, seed: int
) -> list[dict[str, Any]]:
    """Measures one kind of load on every server, all servers in every repeat; a record each."""
    floors: list[list[float]] = [[] for _ in subjects]
    latencies: list[list[Latencies]] = [[] for _ in subjects]
    for _ in range(repeats):
        for place, subject in enumerate(subjects):
            requests = _random_requests(subject.export, rows, seed)
            floors[place].append(_floor(subject, requests, _FLOOR_SHARE * seconds))
            port = subject.server.rest_port if interface == "rest" else subject.server.port
            data = [request.rest() if interface == "rest" else request.grpc() for request in requests]
            latencies[place].append(measure_load(Load(interface, port, data, clients, seconds)))
    return [
        _record(subject, f"{subject.export.name} {interface} b={rows} c={clients}", rows, floor, latency)
        for subject, floor, latency in zip(subjects, floors, latencies, strict=True)
    ]


def _random_requests(export: ServedExport, rows: int, seed: int) -> list[PredictionRequest]:
    generator = np.random.default_rng(seed)
    ids = (export.user_ids, export.item_ids)
    return [random_request(RECOMMEND, rows, *ids, _RECENT, _K, generator) for _ in range(_DIFFERENT_REQUESTS)]


def _floor(subject: _Subject, requests: Sequence[PredictionRequest], seconds: float) -> float:
    """Median seconds of a request without a server."""
    arrays = [request.fed() for request in requests]
    subject.version.run("", arrays[0])
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        subject.version.run("", arrays[len(times) % len(arrays)])
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _record(
    subject: _Subject, case: str, rows: int, floors: Sequence[float], latencies: Sequence[Latencies]
) -> dict[str, Any]:
    """Medians over the repeats; the share of the floor repeat by repeat, since both met the same machine."""
    rates = [each.requests_per_s for each in latencies]
    shares = [rate * floor for rate, floor in zip(rates, floors, strict=True)]
    p50, p99 = ([1e3 * float(np.percentile(each.seconds, part)) for each in latencies] for part in (50, 99))
    values = {
        "p50": p50,
        "p99": p99,
        "requests_per_s": rates,
        "rows_per_s": [rows * rate for rate in rates],
        "floor": [1e3 * floor for floor in floors],
        "share_of_floor": shares,
    }
    return {
        "benchmark": "serving",
        "case": case,
        "server": subject.server.program,
        **{name: significant(statistics.median(repeats)) for name, repeats in values.items()},
        "rss_mb": significant(subject.server.resident_bytes / _MB),
        "version_bytes": subject.export.bytes,
        "items": len(subject.export.item_ids),
        "measured": sum(len(each.seconds) for each in latencies),
        "repeats": {name: [significant(value) for value in repeats] for name, repeats in values.items()},
    }


if __name__ == "__main__":
    run_benchmark(serving, flag("repeats", 1, "Repeats of each measurement.", 1))
