"""How a command runs: threads, TensorFlow's log, progress lines, a request to stop."""

import collections
import contextlib
import gc
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from rd_tf.storage import InputError

Advance = Callable[[int], None]
_SECONDS_BETWEEN_LINES = 30.0


@contextlib.contextmanager
def progress_bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Shows how far something is, with the time left: a bar on a terminal, a line every half minute elsewhere.

    Args:
        description: what is going on.
        total: units of work.
        unit: their name, plural.

    Yields:
        A function that takes the number of units just done.
    """
    if sys.stderr.isatty():
        # Here, since --help imports this module.
        from rich import progress as rich
        from rich.console import Console

        text = rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn(), rich.TextColumn(unit)
        times, console = (rich.TimeElapsedColumn(), rich.TimeRemainingColumn()), Console(stderr=True)
        with rich.Progress(*text, *times, console=console, transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda count: bar.advance(task, count)
        return
    begin = said = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        now = time.monotonic()
        if now - said >= _SECONDS_BETWEEN_LINES and done < total:
            said = now
            left = (now - begin) / done * (total - done)
            print(f"{description}: {done:,} of {total:,} {unit}, {left:.0f} s left", file=sys.stderr, flush=True)

    yield advance


def free_bytes() -> int:
    """Memory that this process can still take: of the machine, its control group and its `ulimit -v`."""
    free = [2**62]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    for most, used in _GROUP_MEMORY:
        # "max" where there is no limit.
        with contextlib.suppress(OSError, ValueError):
            free.append(int(Path(most).read_text()) - int(Path(used).read_text()))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            free.append(limit - pages * resource.getpagesize())
    return max(0, min(free))


_GROUP_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def print_line(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


class RunLog:
    """Prints lines and keeps them in a run's log file.

    Args:
        path: the file; lines are added to what is there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def __call__(self, line: str) -> None:
        print_line(line)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def import_quietly() -> None:
    """Imports TensorFlow and finds its devices while file descriptor 2 points nowhere.

    Lines about oneDNN and a missing GPU driver are written before TF_CPP_MIN_LOG_LEVEL is looked at, so the variable
    alone does not silence them. Python exceptions are not lost: whoever catches them prints them later.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    # TensorFlow imports JAX for its converter and Keras Matplotlib, if they are there: a sixth of the time of all,
    # for what no command uses.
    hidden = [name for name in ("jax", "matplotlib") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    # A fourth of the time goes to looking for garbage among modules, which stay.
    collects = gc.isenabled()
    gc.disable()
    try:
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        gc.freeze()
        if collects:
            gc.enable()
        for name in hidden:
            del sys.modules[name]
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_FEW_CORES = 4
# Each block at work has its own scores in memory.
_MOST_BLOCKS = 4


def share_cores(threads_per_operation: int) -> None:
    """Sets how many threads one operation may use; to be called before TensorFlow's first operation.

    A training step is many operations of about a millisecond and less, which run beside each other. Where these fill
    the cores already, splitting each one as well costs more in waiting than it brings: 15 to 20 % of a step on 2 cores.

    Args:
        threads_per_operation: 0 for one on a machine of up to 4 cores and for TensorFlow's own choice on a larger one.
            In a process that has run an operation before, nothing changes.
    """
    import tensorflow as tf

    if not threads_per_operation:
        threads_per_operation = 1 if _cores() <= _FEW_CORES else 0
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads_per_operation)
    except RuntimeError:
        # TensorFlow has started: an earlier run of this process decided.
        return


def blocks_at_once() -> int:
    """How many blocks of independent work fill the cores, given the threads that an operation may use; at most 4."""
    import tensorflow as tf

    threads_per_operation = tf.config.threading.get_intra_op_parallelism_threads()
    return max(1, min(_MOST_BLOCKS, _cores() // threads_per_operation)) if threads_per_operation else 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Argument = TypeVar("Argument")
Result = TypeVar("Result")


def compute_ahead(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], ahead: int, threads: int = 1
) -> Iterator[Result]:
    """Calls a function in threads of its own, a few calls before its results are asked for.

    It pays where the function and whoever uses the results both leave the interpreter's lock to others, as TensorFlow
    and NumPy do.

    Args:
        function: called once an argument; what it raises is raised in its result's place.
        arguments: taken from the thread that iterates.
        ahead: finished or begun results that may wait while one is used, at least 1.
        threads: calls at the same time; with 1 they come one after the other.

    Yields:
        `function(argument)` of all arguments, in order.
    """
    waiting: collections.deque[Future[Result]] = collections.deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """A signal asked the process to stop while what it does may be left at any point."""


class StopRequest:
    """Notes SIGTERM and SIGINT instead of dying of them, within a `with` block.

    A second signal acts at once, as it would without the block. In a thread that is not the main one no signal is
    caught.

    Attributes:
        signal: the number of the signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._raises = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            self.__exit__()
            signal.raise_signal(number)
        self.signal = number
        if self._raises:
            raise StoppedError

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Runs a block that a signal ends at once.

        Raises:
            StoppedError: a signal came, before or meanwhile.
        """
        self._raises = True
        try:
            if self.signal:
                raise StoppedError
            yield
        finally:
            self._raises = False
        # One that came where its exception was lost, as in a destructor.
        if self.signal:
            raise StoppedError

    @property
    def exit_code(self) -> int:
        """What a process that stops at the request should exit with."""
        return 128 + self.signal


def cluster() -> tuple[int, int]:
    """This process' number among the workers, and how many there are; 0 and 1 without TF_CONFIG.

    A chief counts as the first worker.

    Raises:
        InputError: TF_CONFIG cannot be used.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0, 1
    try:
        return _parse(json.loads(text))
    except ValueError as error:
        reason = f"no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(
            f"TF_CONFIG={text[:200]!r} in the environment cannot be used ({reason}); it has to be like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None


def _parse(config: Any) -> tuple[int, int]:
    jobs = config.get("cluster") if isinstance(config, dict) else None
    task = config.get("task") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise ValueError("no cluster or no task")
    if set(jobs) - {"chief", "worker"}:
        raise ValueError(f"jobs {', '.join(sorted(jobs))}, not only chief and worker")
    for job, addresses in jobs.items():
        if not isinstance(addresses, list):
            raise ValueError(f"{job} is no list")
    chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
    addresses = [*chiefs, *workers]
    if not addresses or len(set(map(str, addresses))) < len(addresses):
        raise ValueError("no workers, or one of them twice")
    kind, index = task.get("type"), task.get("index")
    if kind not in list(jobs) or not isinstance(index, int) or not 0 <= index < len(jobs[kind]):
        raise ValueError(f"task {kind!r} {index!r} is not in the cluster")
    return index + (len(chiefs) if kind == "worker" else 0), len(addresses)
