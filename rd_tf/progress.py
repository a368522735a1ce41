"""Progress on a terminal, lines in a log."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        console = Console(stderr=True)
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
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
