"""Load on a model server from other processes, so that clients and server do not wait for one interpreter lock."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.http_connection import HttpConnection
from benchmarks.serving_process import PREDICT_METHOD, open_channel
from rd_tf.storage import InputError

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
