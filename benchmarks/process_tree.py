"""Runs a command and watches the memory of every process that it starts."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class TreeRun:
    """A finished command.

    Attributes:
        seconds: wall time.
        cpu_seconds: of the command and all its children.
        peak_bytes: the largest resident memory of every process, the command first; those of less than 64 MiB
            are left out.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: list[int]


def run_watched(command: Sequence[str]) -> TreeRun:
    """Runs a command to its end, its output on stderr; needs Linux' /proc.

    A process's peak is the kernel's own (VmHWM), read ten times a second: what its last 0.1 s add may be missed.

    Raises:
        subprocess.CalledProcessError: it fails.
    """

    before = os.times()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in _tree(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), _peak(pid))
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return TreeRun(seconds, cpu, [peak for peak in peaks.values() if peak >= 1 << 26])


def _tree(pid: int) -> list[int]:
    """A process and all its descendants, parents first."""
    found = [pid]
    for each in found:
        try:
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        except OSError:
            continue
    return found


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
