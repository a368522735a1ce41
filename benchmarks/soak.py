"""A model server under valid and malformed requests while versions change: python -m benchmarks.soak --requests=200000.

Two small exports with different weights are published in turn, every --switch_seconds, into a directory that a server
watches and in which two versions are kept. Meanwhile --soak_clients threads send requests, half by REST and half by
gRPC, to all signatures; every answer must be that of one of the two exports. Every hundredth request is malformed
(all kinds in turn): it must be answered with an error or its connection dropped.

Other bounds: the median of the server's resident memory over the last tenth of the requests is at most --most_growth
percent above that over the second half of the first tenth (before that it warms up), the median number of its file
descriptors at most ten higher; no traceback in its log; the last version is served in the end, and SIGTERM ends the
server with code 0. The command ends with 1 and says which bound is broken.

Counted figures: docs/serving_load.md.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.model_server import (
    MODEL,
    PREDICT_METHOD,
    PREDICT_PATH,
    RECOMMEND,
    SCORE,
    SIGNATURES,
    CheckedRequest,
    HttpConnection,
    PredictionRequest,
    ServingProcess,
    checked_requests,
    open_channel,
    post,
    random_request,
    serving_process,
)
from benchmarks.report import Report, check_output, measure_machine, run_benchmark, significant
from rd_tf.runtime import import_quietly
from rd_tf.serving.publishing import publishing, versions
from rd_tf.storage import InputError

_DIM, _MAX_K = 16, 20
_USERS, _ITEMS = [f"user-{user}" for user in range(200)], [f"item-{item}" for item in range(500)]
_ROWS, _K = (1, 3, 8), 5
_KEEP_VERSIONS = 2
_MALFORMED_EVERY = 100
_PATIENCE_SECONDS = 60.0
_SAMPLE_SECONDS = 0.2
# More than the server's --max_body_bytes.
_TOO_LONG = (16 << 20) + 1
_TOO_MANY_ROWS = 1025
DROPPED = "dropped"
_MORE_FILES = 10
_EXAMPLES = 5
_MB = 1e6
# What a server says of a request it does not like. UNAVAILABLE and DEADLINE_EXCEEDED mean that it did not say anything.
_REFUSALS = {
    DROPPED,
    "INVALID_ARGUMENT",
    "FAILED_PRECONDITION",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
}
# Requests answered so far, resident bytes, file descriptors and threads of the server.
Sample = tuple[int, int, int, int]


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
    from rd_tf.serving.publishing import ExportOptions

    models = [Caser(len(_USERS), len(_ITEMS), 5, _DIM, seed=seed + version) for version in range(2)]
    return [export_ranker(model, _USERS, _ITEMS, directory, ExportOptions(max_k=_MAX_K)) for model in models]


def soak_exports(
    sources: Sequence[Path], requests: int, clients: int, switch_seconds: float, seed: int, binary: str
) -> dict[str, Any]:
    """Serves what `make_exports` made in turn, and asks; the counts for `check_bounds`."""
    asked = _random_requests(seed)
    valid, malformed = checked_requests(asked, sources), malformed_requests(asked[1])
    counts = SoakCounts(requests)
    with contextlib.ExitStack() as stack:
        base_path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        _publish(sources[0], base_path)
        server = stack.enter_context(serving_process(base_path, binary))
        channels = [stack.enter_context(open_channel(server.port)) for _ in range(clients)]
        doors = [Doors(server.rest_port, server.port, channel) for channel in channels]
        threads = [threading.Thread(target=_ask, args=(each, valid, malformed, counts)) for each in doors]
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


@dataclasses.dataclass(frozen=True)
class Doors:
    """Where a client reaches the server: its ports of REST and gRPC, and a channel to gRPC."""

    rest_port: int
    port: int
    channel: grpc.Channel


# How it is sent, `_REST`, `_HALF_REST`, `_NO_HTTP2` or a gRPC method, and what.
Malformed = tuple[str, bytes]
_REST, _HALF_REST, _NO_HTTP2 = "rest", "half rest", "no HTTP/2"
_GARBAGE = b"\x00\x01\x02\xff" * 100


def malformed_requests(valid: PredictionRequest) -> dict[str, Malformed]:
    """Name -> a malformed request by REST, by gRPC or by neither, made of a right one of two rows or more."""
    return {
        **{f"REST {name}": (_REST, data) for name, data in _rest(valid).items()},
        **{f"gRPC {name}": request for name, request in _grpc(valid).items()},
        "REST half body": (_HALF_REST, valid.rest()[:-20]),
        "gRPC garbage bytes": (_NO_HTTP2, _GARBAGE),
    }


def send_malformed(doors: Doors, request: Malformed) -> str:
    """Sends one request and tells how it ended: an HTTP status, the name of a gRPC status or `DROPPED`."""
    way, data = request
    if way.startswith("/"):
        try:
            doors.channel.unary_unary(way)(data, timeout=_PATIENCE_SECONDS)
        except grpc.RpcError as error:
            return error.code().name
        return grpc.StatusCode.OK.name
    connection = HttpConnection(doors.port if way == _NO_HTTP2 else doors.rest_port, _PATIENCE_SECONDS)
    try:
        connection.send(data)
        if way == _NO_HTTP2:
            # The server's own greeting may come first.
            connection.read_to_end()
            return DROPPED
        if way == _HALF_REST:
            connection.end_sending()
        return str(connection.read()[0])
    except ConnectionError:
        return DROPPED
    finally:
        connection.close()


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
        "garbage bytes": _GARBAGE + b"\r\n\r\n",
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


class SoakCounts:
    """Counts of all clients together, and samples of the server's use of the machine in the order of time."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.next = itertools.count().__next__
        self.done = 0
        self.samples: list[Sample] = []
        self._failed, self._malformed, self._accepted = 0, 0, 0
        self._examples: list[str] = []
        self._outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._lock = threading.Lock()

    def add_valid(self, trouble: str = "") -> None:
        """A valid request got the right answer, or something else."""
        with self._lock:
            self.done += 1
            if trouble:
                self._failed += 1
                self._examples = [*self._examples, trouble][:_EXAMPLES]

    def add_malformed(self, kind: str, outcome: str) -> None:
        """A malformed request ended."""
        with self._lock:
            self.done += 1
            self._malformed += 1
            self._accepted += not _is_refusal(outcome)
            self._outcomes[kind][outcome] += 1

    def record(self) -> dict[str, Any]:
        """The counts, and medians of the samples over the second half of the first tenth and over the last tenth."""
        shares = [(sample[0] / self.requests, sample) for sample in self.samples]
        first = [sample for share, sample in shares if 0.05 <= share <= 0.1] or self.samples[:1]
        last = [sample for share, sample in shares if share > 0.9] or self.samples[-1:]
        tenths = [[sample for share, sample in shares if tenth <= 10 * share < tenth + 1] for tenth in range(10)]
        return {
            "requests": self.done,
            "failed": self._failed,
            "malformed": self._malformed,
            "accepted": self._accepted,
            **_medians(first, "first_"),
            **_medians(last, ""),
            # A leak goes on, memory that settles does not.
            "rss_mb_by_tenth": [_medians(samples, "")["rss_mb"] for samples in tenths if samples],
            "most_rss_mb": round(max(sample[1] for sample in self.samples) / _MB, 1),
            "examples": self._examples,
            "outcomes": {kind: dict(ends) for kind, ends in sorted(self._outcomes.items())},
        }


def check_bounds(record: Mapping[str, Any], most_growth: float) -> None:
    """Judges a soak; an InputError names all bounds that are broken."""
    growth = 100 * (record["rss_mb"] / record["first_rss_mb"] - 1)
    files, first_files = record["open_files"], record["first_open_files"]
    kinds = [kind for kind, ends in record["outcomes"].items() if not all(map(_is_refusal, ends))]
    bounds = [
        (record["failed"], f"{record['failed']} valid requests failed, such as {'; '.join(record['examples'])}"),
        (record["accepted"], f"{record['accepted']} malformed requests were not refused: {', '.join(kinds)}"),
        (growth > most_growth, f"memory grew by {growth:.1f} % from {record['first_rss_mb']} MB"),
        (files > first_files + _MORE_FILES, f"file descriptors grew from {first_files} to {files}"),
        (record["tracebacks"], f"the server's log has {record['tracebacks']} tracebacks"),
        (not record["last_version_served"], "the last version was not served"),
        (record["exit_code"], f"the server ended with {record['exit_code']}"),
    ]
    if sentences := [sentence for is_broken, sentence in bounds if is_broken]:
        raise InputError("; ".join(sentences))


def _is_refusal(outcome: str) -> bool:
    return outcome in _REFUSALS or (outcome.isdigit() and int(outcome) >= 400)


def _medians(samples: Sequence[Sample], prefix: str) -> dict[str, float]:
    _, rss, files, threads = (statistics.median(column) for column in zip(*samples, strict=True))
    return {f"{prefix}rss_mb": round(rss / _MB, 1), f"{prefix}open_files": files, f"{prefix}threads": threads}


def _ask(doors: Doors, valid: Sequence[CheckedRequest], malformed: Mapping[str, Malformed], counts: SoakCounts) -> None:
    """A client: asks until all requests have been begun."""
    predict, kinds = doors.channel.unary_unary(PREDICT_METHOD), list(malformed)
    connection: HttpConnection | None = None
    while (number := counts.next()) < counts.requests:
        if number % _MALFORMED_EVERY == 0:
            kind = kinds[number // _MALFORMED_EVERY % len(kinds)]
            try:
                counts.add_malformed(kind, send_malformed(doors, malformed[kind]))
            # No answer at all, for one.
            except Exception as error:
                counts.add_malformed(kind, type(error).__name__)
            continue
        request, status = valid[number % len(valid)], 200
        try:
            if request.is_rest:
                connection = connection or HttpConnection(doors.rest_port, _PATIENCE_SECONDS)
                status, answer = connection.ask(request.data)
            else:
                answer = predict(request.data, timeout=_PATIENCE_SECONDS)
            is_right = status == 200 and request.is_right(answer)
            counts.add_valid("" if is_right else f"{status} {answer[:200]!r}")
        # Whatever happens to a valid request is what this benchmark looks for.
        except Exception as error:
            connection = None
            counts.add_valid(f"{type(error).__name__}: {error!s:.200}")
    if connection:
        connection.close()


def _random_requests(seed: int) -> list[PredictionRequest]:
    generator = np.random.default_rng(seed)
    # Some users and items that nobody knows, and none.
    users, items = [*_USERS, "nobody"], [*_ITEMS, "nothing", ""]
    asked = [(signature, rows) for signature in SIGNATURES for rows in _ROWS]
    return [random_request(signature, rows, users, items, 2 * rows, _K, generator) for signature, rows in asked]


def _watch(
    server: ServingProcess,
    counts: SoakCounts,
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
    run_benchmark(soak)
