"""Commands that are killed at random moments: python -m benchmarks.interrupted_commands --kills=60.

A command gets SIGKILL, with all its children, at a moment that is drawn over the seconds it takes or, every second
time, up to 20 ms after one of the changes of its files. Then no reader may find half of anything, and the same command,
which may be killed twice more, has to end with what it leaves undisturbed. A kill loses nothing that was
written, as a power cut would: against that there is fsync, whose order a test checks.
"""

import collections
import dataclasses
import json
import random
import re
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import flags
from benchmarks.harness import check_cases, check_output, significant
from benchmarks.interrupted_commands_artefacts import KINDS, names
from benchmarks.interrupted_commands_cases import CASES, Case, with_what_they_start_from, write_check_ins
from benchmarks.interrupted_commands_process import Attempt, Moment, attempt
from rd_tf import run_directory, storage
from rd_tf.errors import InputError
from rd_tf.quiet_tensorflow import import_quietly

_AFTER_CHANGE_SECONDS = 0.02
_MOST_KILLS = 3
# Of a temporary name of Python's.
_RANDOM_PART = re.compile(r"[a-z0-9_]{8}(?=\.|/|$)")


@dataclasses.dataclass(frozen=True)
class Reference:
    """A command that nobody disturbed.

    Attributes:
        directory: where it ran, with what it left.
        run: how it went.
    """

    directory: Path
    run: Attempt


class World:
    """A directory with an undisturbed run of every case so far.

    Args:
        root: empty.
        seed: of the check-ins.
        checkpoint_minutes: of the trainings.
    """

    def __init__(self, root: Path, seed: int, checkpoint_minutes: float) -> None:
        self._root, self._checkpoint_minutes = root, checkpoint_minutes
        self._references: dict[str, Reference] = {}
        write_check_ins(root, seed)

    def make_reference(self, name: str, case: Case) -> Reference:
        """Runs a case undisturbed and keeps what it leaves.

        Raises:
            InputError: it failed.
        """
        directory = self.start(name, case)
        run = self.attempt(case, directory)
        if run.code:
            raise InputError(f"{name} ended with {run.code} though nobody disturbed it: {run.said}")
        self._references[name] = Reference(directory, run)
        return self._references[name]

    def start(self, name: str, case: Case) -> Path:
        """A new directory with what a case starts from."""
        directory = Path(tempfile.mkdtemp(prefix=f"{name.replace(' ', '-')}-", dir=self._root))
        for path, source in case.starts_from.items():
            found = self.source(source)
            (shutil.copytree if found.is_dir() else shutil.copy)(found, directory / path)
        return directory

    def source(self, source: str) -> Path:
        """Where what a case starts from is."""
        name, _, path = source.partition("/")
        return self._references[name].directory / path if path else self._root / name

    def attempt(self, case: Case, directory: Path, moment: Moment | None = None) -> Attempt:
        """Runs a case in its directory; the system's temporary files go beside it."""
        temporary = directory.with_name(f"{directory.name}.temporary")
        temporary.mkdir(exist_ok=True)
        checkpoints = (f"--checkpoint_minutes={self._checkpoint_minutes}",) if "rd_tf.train" in case.arguments else ()
        return attempt((*case.arguments, *checkpoints), directory, temporary, moment)


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
        self._ended = 0

    def interrupt(self, kills: int) -> dict[str, Any]:
        """Kills until so many have died before their end.

        Returns:
            The case's record.
        """
        while len(self._killed) < kills:
            self._trial(kills)
        undisturbed = self._reference.run
        return {
            "kills": len(self._killed),
            "reruns": len(self._lost),
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
        differences = KINDS[kind].differences(directory / path, self._reference.directory / path)
        # With an old version to remove, an export has a moment with both.
        if differences and not (before and kind == "exports"):
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


def interrupted_commands(*, kills: int, cases: list[str], checkpoint_minutes: float, seed: int, output: str) -> None:
    """Kills prepare, train, teach and export at random moments, runs them again and compares what they leave."""
    check_output(output)
    import_quietly()
    chosen = check_cases(cases, list(CASES))
    found = run_directory.environment()
    machine = {"processor": found["machine"]["processor"], "cores": found["machine"]["cores"]}
    common = {"checkpoint_minutes": checkpoint_minutes, "seed": seed, **machine, "git_revision": found["git_revision"]}
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root), seed, checkpoint_minutes)
        for name in with_what_they_start_from(chosen):
            if name not in chosen:
                world.make_reference(name, CASES[name])
                continue
            interruption = Interruption(name, CASES[name], world, random.Random(f"{seed} {name}"))
            place = chosen.index(name)
            record = interruption.interrupt(kills // len(chosen) + (place < kills % len(chosen)))
            records.append({"benchmark": "interrupted_commands", "case": name, **record, **common})
            _write(records, output)
    records.append({"benchmark": "interrupted_commands", "case": "all", **summary(records), **common})
    _write(records, output)
    if records[-1]["failures"]:
        raise InputError(f"{records[-1]['failures']} failures; the lines above name them")


def _write(records: list[dict[str, Any]], output: str) -> None:
    # After each case: all of them take an hour.
    print(json.dumps(records[-1]), flush=True)
    if output:
        storage.write_text(output, "".join(f"{json.dumps(record)}\n" for record in records))


def summary(records: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The last line: sums over the cases."""
    failures = sum(len(record["failures"]) for record in records)
    return {
        "cases": len(records),
        **{name: sum(record[name] for record in records) for name in ("kills", "reruns", "ended_before")},
        "failures": failures,
        "verdict": "failed" if failures else "passed",
    }


if __name__ == "__main__":
    flags.run(interrupted_commands, flags.checkpoint_minutes_flag(0.001))
