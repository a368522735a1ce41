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
    d64_clusters     --index=clusters

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
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.model_server import INTERFACES, Latencies, Load, ServingProcess, measure_load, serving_process
from benchmarks.report import (
    Report,
    check_cases,
    check_output,
    measure_machine,
    repeats_flag,
    run_benchmark,
    seconds_of,
    significant,
)
from benchmarks.subjects import SEQUENCE_LENGTH
from rd_tf import run_directory
from rd_tf.data import dataset_directory
from rd_tf.errors import InputError
from rd_tf.models.caser import Caser
from rd_tf.models.ranker import SequenceRanker
from rd_tf.models.storage import load_model
from rd_tf.quiet_tensorflow import import_quietly
from rd_tf.serving.export import export_ranker
from rd_tf.serving.export_options import ExportOptions

if TYPE_CHECKING:
    from benchmarks.model_server import PredictionRequest

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
    "d64_clusters": (64, {"index": "clusters"}),
}
_LARGE = 200_000
_DIFFERENT_REQUESTS = 64
_K, _RECENT = 10, 20
_FLOOR_SHARE = 0.2
_MB = 1e6


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
    numbers_of_clients, numbers_of_rows = _whole_numbers("clients", clients), _whole_numbers("rows", rows)
    check_output(output)
    import_quietly()
    import tensorflow as tf

    # That its loader is deprecated.
    tf.get_logger().setLevel("ERROR")
    from rd_tf.serving.export_options import ExportOptions

    report = Report("serving", measure_machine(), output)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if run_dirs:
            exports = [export_run(run_dir, dataset, directory) for run_dir in run_dirs]
        else:
            sizes = (users, items, seed, directory)
            exports = [export_random(name, known[name][0], ExportOptions(**known[name][1]), *sizes) for name in chosen]
        subjects = [
            _Subject(export, stack.enter_context(serving_process(export.base_path, binary))) for export in exports
        ]
        for rows_, interface, clients_ in itertools.product(numbers_of_rows, INTERFACES, numbers_of_clients):
            for record in measure_in_turn(subjects, interface, rows_, clients_, seconds, repeats, seed):
                report.add_record(record)
    report.finish()


class _Subject:
    """An export, its server and the same graph in this process."""

    def __init__(self, export: "ServedExport", server: ServingProcess) -> None:
        from rd_tf.serving.server.limits import Limits
        from rd_tf.serving.server.loaded_version import LoadedVersion
        from rd_tf.serving.server.warmup_replay import replay_warmup

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
        _record(subject, f"{subject.export.name} {interface} b={rows} c={clients}", rows, *measured)
        for subject, *measured in zip(subjects, floors, latencies, strict=True)
    ]


def _random_requests(export: "ServedExport", rows: int, seed: int) -> "list[PredictionRequest]":
    from benchmarks.model_server import random_request
    from rd_tf.serving.signatures import RECOMMEND

    generator = np.random.default_rng(seed)
    ids = (export.user_ids, export.item_ids)
    return [random_request(RECOMMEND, rows, *ids, _RECENT, _K, generator) for _ in range(_DIFFERENT_REQUESTS)]


def _floor(subject: _Subject, requests: "Sequence[PredictionRequest]", seconds: float) -> float:
    """Median seconds of a request without a server."""
    arrays = [request.fed() for request in requests]
    subject.version.run("", arrays[0])
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        inputs = arrays[len(times) % len(arrays)]
        times.append(seconds_of(lambda inputs=inputs: subject.version.run("", inputs)))
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


def _whole_numbers(flag: str, texts: Sequence[str]) -> list[int]:
    if not texts:
        raise InputError(f"--{flag} is empty; name whole numbers, for example --{flag}=1,8")
    for text in texts:
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"--{flag}={text} is no whole number from 1")
    return [int(text) for text in texts]


if __name__ == "__main__":
    run_benchmark(serving, repeats_flag(1))


@dataclasses.dataclass(frozen=True)
class ServedExport:
    """An export on disk.

    Attributes:
        name: of the case.
        base_path: parent of its only version.
        version: the version's directory.
        user_ids: raw ids.
        item_ids: raw ids.
    """

    name: str
    base_path: Path
    version: Path
    user_ids: Sequence[str]
    item_ids: Sequence[str]

    @property
    def bytes(self) -> int:
        """Size of the version."""
        return sum(file.stat().st_size for file in self.version.rglob("*") if file.is_file())


def export_random(
    name: str, dim: int, options: ExportOptions, users: int, items: int, seed: int, directory: Path
) -> ServedExport:
    """Exports a Caser with the paper's settings and random weights."""
    ids = [str(user) for user in range(users)], [str(item) for item in range(items)]
    return _export(name, lambda: Caser(users, items, SEQUENCE_LENGTH, dim, seed=seed), *ids, options, directory)


def export_run(run_dir: str | os.PathLike[str], dataset: str, directory: Path) -> ServedExport:
    """Exports a finished run in float32; its case is called after the last part of its path.

    Raises:
        InputError: no finished run, or of another dataset.
    """
    manifest = run_directory.load_run_manifest(run_dir)
    dataset_directory.check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", run_dir)
    data = dataset_directory.load_dataset(dataset)
    name = Path(run_dir).absolute().name
    return _export(name, lambda: load_model(run_dir), data.user_ids, data.item_ids, ExportOptions(), directory)


def _export(
    name: str,
    make: Callable[[], SequenceRanker],
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    options: ExportOptions,
    directory: Path,
) -> ServedExport:
    base_path = directory / name
    version = export_ranker(make(), user_ids, item_ids, base_path, options)
    # A catalogue of a million is some GB of copies, which would stand beside the servers.
    gc.collect()
    return ServedExport(name, base_path, version, user_ids, item_ids)
