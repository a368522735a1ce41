"""Kills one command over and over, and judges what it leaves."""

import collections
import random
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.interrupted_commands_artefacts import KINDS, names
from benchmarks.interrupted_commands_cases import Case
from benchmarks.interrupted_commands_process import Attempt, Moment
from benchmarks.interrupted_commands_world import World
from benchmarks.report import significant
from rd_tf import run_directory

_AFTER_CHANGE_SECONDS = 0.02
_MOST_KILLS = 3
# Of a temporary name of Python's.
_RANDOM_PART = re.compile(r"[a-z0-9_]{8}(?=\.|/|$)")


class Interruption:
    """Kills one case over and over and keeps count.

    Args:
        name: of the case.
        case: what is killed.
        world: with references of all that the case starts from.
        generator: of the moments.
    """

    def __init__(self, name: str, case: Case, world: World, generator: random.Random) -> None:
        self._name, self._case, self._world, self._random = name, case, world, generator
        self._reference = world.make_reference(name, case)
        self._killed: list[dict[str, Any]] = []
        self._lost: list[float] = []
        self._states: collections.Counter[str] = collections.Counter()
        self._temporary: collections.Counter[str] = collections.Counter()
        self._failures: list[str] = []
        self._ended = self._resumed = 0

    def interrupt(self, kills: int) -> dict[str, Any]:
        """Kills until so many have died before their end.

        Returns:
            `kills`; `reruns`, commands that were run to their end after kills; `resumed_runs`, those that went on from
            a checkpoint; `ended_before`, commands that had ended when their moment came; the undisturbed command's
            seconds and changes of files; of every kill the seconds as a share of those (`killed_at`) and the changes
            before it; what readers found after kills; `seconds_lost`, the median over the reruns of what all attempts
            took beyond the undisturbed seconds; what killed processes left among the system's temporary files; and the
            failures, in words.
        """
        while len(self._killed) < kills:
            self._trial(kills)
        undisturbed = self._reference.run
        return {
            "kills": len(self._killed),
            "reruns": len(self._lost),
            "resumed_runs": self._resumed,
            "ended_before": self._ended,
            "undisturbed_seconds": significant(undisturbed.seconds),
            "undisturbed_changes": undisturbed.changes,
            "killed_at": [each["share"] for each in self._killed],
            "killed_after_changes": [each["changes"] for each in self._killed],
            "found_after_kill": dict(sorted(self._states.items())),
            "seconds_lost": significant(statistics.median(self._lost)) if self._lost else 0.0,
            "left_in_tmpdir": dict(self._temporary),
            "failures": self._failures,
            "verdict": "failed" if self._failures else "passed",
        }

    def _trial(self, kills: int) -> None:
        directory = self._world.start(self._name, self._case)
        begin, seconds = len(self._killed), 0.0
        run = None
        for _ in range(self._random.randint(1, _MOST_KILLS)):
            if len(self._killed) == kills:
                break
            run = self._world.attempt(self._case, directory, self._moment())
            seconds += run.seconds
            if not run.is_killed:
                self._ended += 1
                break
            share = run.seconds / self._reference.run.seconds
            self._killed.append({"share": round(share, 3), "changes": run.changes})
            self._check_kill(directory)
        if run is None or run.is_killed:
            run = self._world.attempt(self._case, directory)
            seconds += run.seconds
        if len(self._killed) > begin:
            self._lost.append(seconds - self._reference.run.seconds)
            self._resumed += "resumed from" in run.said
        self._check_end(directory, run)
        left = names(directory.with_name(f"{directory.name}.temporary"))
        self._temporary += collections.Counter(_RANDOM_PART.sub("*", name) for name in left)
        if not self._failures:
            shutil.rmtree(directory)

    def _moment(self) -> Moment:
        undisturbed = self._reference.run
        if len(self._killed) % 2 == 0 and undisturbed.changes:
            change = self._random.randint(1, undisturbed.changes)
            return Moment(self._random.uniform(0, _AFTER_CHANGE_SECONDS), change)
        return Moment(self._random.uniform(0, undisturbed.seconds))

    def _check_kill(self, directory: Path) -> None:
        for path, kind in self._case.leaves.items():
            try:
                state = self._state(directory, path, kind)
            # Whatever a reader stumbles over is what is looked for.
            except Exception as error:
                state = "half-written"
                self._failed(f"{path} after a kill: {type(error).__name__}: {error}")
            self._states[f"{path}: {state}"] += 1

    def _state(self, directory: Path, path: str, kind: str) -> str:
        before = self._case.starts_from.get(path)
        if not (directory / path).exists():
            if before:
                self._failed(f"{path} is gone after a kill")
            return "nothing"
        if not KINDS[kind].is_whole(directory / path):
            if before:
                self._failed(f"{path} is unfinished after a kill, though a finished one was there")
            return "unfinished"
        if before and not KINDS[kind].differences(directory / path, self._world.source(before)):
            return "old"
        differences = KINDS[kind].differences_after_kill(directory / path, self._reference.directory / path)
        if differences:
            self._failed(f"{path} after a kill: {'; '.join(differences)}")
        return "new"

    def _check_end(self, directory: Path, run: Attempt) -> None:
        if run.code:
            self._failed(f"the command ended with {run.code}: {run.said}")
            return
        for path, kind in self._case.leaves.items():
            try:
                is_whole = KINDS[kind].is_whole(directory / path)
                reference = self._reference.directory / path
                differences = KINDS[kind].differences(directory / path, reference) if is_whole else ["unfinished"]
            except Exception as error:
                differences = [f"{type(error).__name__}: {error}"]
            if differences:
                self._failed(f"{path} at the end: {'; '.join(differences)}")
        left = [name for name in names(directory) if ".tmp-" in name or f"/{run_directory.CHECKPOINT}/" in name]
        tops = {path.name for path in directory.iterdir()} ^ {path.name for path in self._reference.directory.iterdir()}
        if left or tops:
            self._failed(f"left over at the end: {', '.join(sorted({*left, *tops}))}")

    def _failed(self, sentence: str) -> None:
        self._failures.append(f"after {len(self._killed)} kills: {sentence}")
