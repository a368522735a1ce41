"""A command in a process of its own that is watched and, at some moment, killed."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LOOK_SECONDS = 0.002
_SHOWN = 2000


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        seconds: after the start, or after the change.
        change: how many changes of the files have to be seen first; 0: none, the seconds count from the start.
    """

    seconds: float
    change: int = 0


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What became of a command.

    Attributes:
        code: as the shell has it; -9 after a kill.
        seconds: until its end.
        changes: how often the files under its directory were seen to have changed.
        said: the end of what it printed.
    """

    code: int
    seconds: float
    changes: int
    said: str

    @property
    def is_killed(self) -> bool:
        """Whether it died by the kill; else it had ended before."""
        return self.code == -signal.SIGKILL


def attempt(arguments: Sequence[str], directory: Path, temporary: Path, moment: Moment | None = None) -> Attempt:
    """Runs this Python in a directory, and kills it with all its children at a moment.

    Args:
        arguments: of Python.
        directory: where it runs; its files are watched.
        temporary: directory for the system's temporary files.
        moment: None lets it end.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    log = temporary.with_suffix(".log")
    with open(log, "wb") as said:
        begin = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            changes = _watch(process, directory, begin, moment)
        finally:
            # The group is there until its leader has been waited for.
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        seconds = time.monotonic() - begin
    return Attempt(code, seconds, changes, log.read_text(errors="replace")[-_SHOWN:].strip())


def _watch(process: subprocess.Popen[bytes], directory: Path, begin: float, moment: Moment | None) -> int:
    """Returns the number of changes when the process has ended or the moment has come."""
    changes, files = 0, _files(directory)
    since = begin if moment is not None and not moment.change else None
    # Not poll(), which would reap the leader and let its group go.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        now = time.monotonic()
        if moment is not None and since is not None and now - since >= moment.seconds:
            break
        found = _files(directory)
        if found != files:
            files, changes = found, changes + 1
            if moment is not None and changes == moment.change:
                since = time.monotonic()
        time.sleep(_LOOK_SECONDS)
    return changes


def _files(directory: Path) -> set[tuple[str, int, int]]:
    """Path, size and time of everything below."""
    found, directories = set(), [os.fspath(directory)]
    while directories:
        try:
            for entry in os.scandir(directories.pop()):
                status = entry.stat(follow_symlinks=False)
                found.add((entry.path, status.st_size, status.st_mtime_ns))
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
        except FileNotFoundError:
            # It went while we looked, which is a change that the next look sees.
            continue
    return found
