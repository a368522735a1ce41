"""Processes beside each other, each on its own share of the cores, which end when their parent does."""

import dataclasses
import os
import subprocess
import time
from pathlib import Path
from typing import IO

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 20.0


@dataclasses.dataclass(frozen=True, eq=False)
class Child:
    """A process that was started.

    Attributes:
        process: the process.
        slot: which share of the cores it has.
        log: takes its output.
        begin: `time.monotonic()` of its start.
    """

    process: subprocess.Popen[bytes]
    slot: int
    log: IO[bytes]
    begin: float

    @property
    def seconds(self) -> float:
        """Wall time since its start."""
        return time.monotonic() - self.begin

    def stop(self) -> None:
        """Asks it to end, with SIGTERM; `Children.ended` tells when it has."""
        self.process.terminate()


class Children:
    """Starts processes and says which have ended; those that are left when the `with` block ends are stopped.

    Args:
        at_once: processes at the same time. Where the machine allows, each has as many cores as the others.
    """

    def __init__(self, at_once: int) -> None:
        self._shares = core_shares(at_once)
        self._free = list(range(at_once))
        self._running: list[Child] = []

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._running:
            child.stop()
        for child in self._running:
            try:
                child.process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.log.close()

    def has_room(self) -> bool:
        """Whether one more may be started."""
        return bool(self._free)

    def start(self, command: list[str], path: Path) -> Child:
        """Starts a process where there is room.

        Args:
            command: program and arguments.
            path: log file that gets its output, after what is there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "ab")  # noqa: SIM115
        if log.tell():
            log.write(f"\n=== again, {time.strftime('%Y-%m-%d %H:%M:%S')} ===\n".encode())
            log.flush()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        child = Child(process, self._free.pop(0), log, time.monotonic())
        self._running.append(child)
        if self._shares:
            # The child has not begun its threads yet; they inherit this.
            os.sched_setaffinity(process.pid, self._shares[child.slot])
        return child

    def ended(self) -> list[Child]:
        """Those that have ended since the last call; waits a moment where none has."""
        ended = [child for child in self._running if child.process.poll() is not None]
        for child in ended:
            self._running.remove(child)
            self._free.append(child.slot)
            child.log.close()
        if not ended:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return ended


def core_shares(at_once: int) -> list[set[int]]:
    """Splits the cores that this process may use into equal shares; none where there are too few or no such call."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    size = len(cores) // at_once
    return [set(cores[slot * size : (slot + 1) * size]) for slot in range(at_once)] if size else []
