"""Publishers that are killed at random moments: python -m benchmarks.interrupted_publishes --publishes=1000.

A forked child publishes a small version and gets SIGKILL after a random share of the time that a publish takes, or
(every second one) of the time from its last written file to its end, over and over. Meanwhile a reader polls as
tensorflow_model_server does and checks every file it finds by its SHA-256. A kill loses nothing that was written, as a
power cut would: against that there is fsync, whose order a test checks.
"""

import functools
import json
import mmap
import os
import random
import signal
import statistics
import struct
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import check_cases, check_output, run_benchmark
from benchmarks.version_reader import VersionReader, read_version, write_version
from rd_tf import run_directory, storage
from rd_tf.serving.publishing import LAST_VERSION_FILE, publishing, versions

CASES = {"keep all": 0, "keep 2": 2}
_STARTED, _WRITING, _WRITTEN, _STOP = 0, 1, 2, 9
_TIMED_EVERY = 20
_LOOK_SECONDS = 0.0001
# A little over the whole, so that the end of a publish is met as often as its other moments.
_LATEST = 1.15

Publish = Callable[[Path, int, int, Callable[[int], None]], None]


def publish_version(directory: Path, keep_versions: int, seed: int, tell: Callable[[int], None]) -> None:
    """Publishes one version and tells how far it has come."""
    with publishing(directory, keep_versions) as new:
        tell(_WRITING)
        write_version(new.directory, seed)
        tell(_WRITTEN)


def interrupt(
    directory: Path, publishes: int, keep_versions: int, seed: int, publish: Publish = publish_version
) -> dict[str, Any]:
    """Kills publishers until `publishes` of them have died before their end.

    Args:
        directory: of the served model, empty.
        publishes: kills.
        keep_versions: as in `publishing`.
        seed: of the moments and of the files.
        publish: what a child does.

    Returns:
        kills by moment, publishes that ended, seconds, what the reader counted (see `VersionReader.counts`), and what a
        last publish left: `leftovers`, names that should not be there, and `versions`.
    """
    begin, generator = time.monotonic(), random.Random(seed)
    killed = dict.fromkeys(("before writing", "while writing", "before appearing", "after appearing"), 0)
    ended, attempt = 0, 0
    whole: list[float] = []
    tail: list[float] = []
    with mmap.mmap(-1, 16) as shared:
        reader = _fork_reader(directory, seed, shared)
        while sum(killed.values()) < publishes:
            attempt += 1
            is_timed = attempt % _TIMED_EVERY == 1
            shared[0], before = _STARTED, time.monotonic()
            highest = _highest(directory)
            child = _fork(functools.partial(publish, directory, keep_versions, attempt, _teller(shared)))
            if not is_timed:
                is_late = attempt % 2 == 0
                while is_late and shared[0] < _WRITTEN:
                    time.sleep(_LOOK_SECONDS)
                time.sleep(generator.uniform(0, _LATEST * statistics.median((tail if is_late else whole)[-5:])))
                os.kill(child, signal.SIGKILL)
            if _has_ended(child):
                ended += 1
                if is_timed:
                    whole.append(time.monotonic() - before)
                    tail.append(time.monotonic() - struct.unpack_from("d", shared, 8)[0])
                continue
            has_appeared = _highest(directory) > highest
            killed["after appearing" if has_appeared else list(killed)[shared[0]]] += 1
        _has_ended(_fork(functools.partial(publish, directory, keep_versions, attempt + 1, _teller(shared))))
        shared[1] = _STOP
        counts = reader()
    left, names = versions(directory), {".lock", LAST_VERSION_FILE}
    return {
        "killed": killed,
        "ended": ended,
        "publish_ms": round(1e3 * statistics.median(whole), 2),
        "seconds": round(time.monotonic() - begin, 1),
        **counts,
        "leftovers": sorted({path.name for path in directory.iterdir()} - names - {path.name for path in left}),
        "versions": len(left),
        "broken_versions": sum(read_version(path)[0] != "whole" for path in left),
    }


def _highest(directory: Path) -> int:
    return max((int(path.name) for path in versions(directory)), default=0)


def _teller(shared: mmap.mmap) -> Callable[[int], None]:
    def tell(step: int) -> None:
        # The clock is the same in every process.
        struct.pack_into("d", shared, 8, time.monotonic())
        shared[0] = step

    return tell


def _fork(action: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _has_ended(child: int) -> bool:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a publisher ended with {code}; its traceback is above")
    return code == 0


def _fork_reader(directory: Path, seed: int, shared: mmap.mmap) -> Callable[[], dict[str, Any]]:
    receive, send = os.pipe()

    def read() -> None:
        reader = VersionReader(directory, seed)
        while shared[1] != _STOP:
            reader.poll()
        with open(send, "w") as file:
            json.dump(reader.counts, file)

    child = _fork(read)
    os.close(send)

    def result() -> dict[str, Any]:
        with open(receive) as file:
            counts: dict[str, Any] = json.load(file)
        _has_ended(child)
        return counts

    return result


def interrupted_publishes(*, publishes: int, cases: list[str], seed: int, output: str) -> None:
    """Kills publishers of versions at random moments while a reader looks for a partial version."""
    check_output(output)
    chosen = check_cases(cases, list(CASES))
    found = run_directory.environment()
    machine = {"processor": found["machine"]["processor"], "cores": found["machine"]["cores"]}
    lines = []
    for case in chosen:
        with tempfile.TemporaryDirectory() as directory:
            counts = interrupt(Path(directory), publishes, CASES[case], seed)
        record = {"benchmark": "interrupted_publishes", "case": case, **counts}
        lines.append(json.dumps({**record, **machine, "git_revision": found["git_revision"]}))
        print(lines[-1], flush=True)
        print(
            f"{case}: {sum(counts['killed'].values()):,} kills, {counts['reads']:,} reads, {counts['partial']} partial "
            f"versions, {len(counts['leftovers'])} leftovers, {counts['seconds']} s",
            flush=True,
        )
    if output:
        storage.write_text(output, "".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    run_benchmark(interrupted_publishes)
