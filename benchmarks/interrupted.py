"""Commands and publishers that are killed at random moments: python -m benchmarks.interrupted.

A command gets SIGKILL, with all its children, at a moment that is drawn over the seconds it takes or, every second
time, up to 20 ms after one of the changes of its files. Then no reader may find half of anything, and the same command,
which may be killed twice more, has to end with what it leaves undisturbed.

The cases `publish` kill a process that publishes small versions of an export after a random share of the time that a
publish takes or, every second time, of the time from its last written file to its end. Meanwhile a reader polls as
tensorflow_model_server does and checks every file it finds by its SHA-256.

A kill loses nothing that was written, as a power cut would: against that there is fsync, whose order a test checks.
"""

import collections
import contextlib
import csv
import dataclasses
import fnmatch
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import check_cases, check_output, flag, run_benchmark, significant
from rd_tf import run_directory
from rd_tf.runtime import import_quietly
from rd_tf.serving.publishing import LAST_VERSION_FILE, publishing, versions
from rd_tf.storage import InputError, file_sha256, read_json, read_manifest, write_text

ROOT = Path(__file__).parents[1]
CHECK_INS = "check_ins.csv"


def interrupted(
    *, kills: int, publishes: int, cases: list[str], checkpoint_minutes: float, seed: int, output: str
) -> None:
    """Kills commands, the pipeline and publishers at random moments, and looks for what is half-written or lost.

    Cases: every command with what it starts from, `publish` and `publish --keep_versions`.
    """
    check_output(output)
    chosen = check_cases(cases, [*PUBLISHERS, *CASES])
    commands = [name for name in chosen if name in CASES]
    found = run_directory.environment()
    machine = {"processor": found["machine"]["processor"], "cores": found["machine"]["cores"]}
    records: list[dict[str, Any]] = []

    def add(name: str, record: Mapping[str, Any]) -> None:
        common = {"seed": seed, **machine, "git_revision": found["git_revision"]}
        records.append({"benchmark": "interrupted", "case": name, **record, **common})
        print(json.dumps(records[-1]), flush=True)
        # After each case: all of them take an hour.
        if output:
            write_text(output, "".join(f"{json.dumps(each)}\n" for each in records))

    # First, as they are forked and TensorFlow's threads do not survive that.
    for name in PUBLISHERS:
        if name in chosen:
            with tempfile.TemporaryDirectory() as directory:
                add(name, interrupt_publishers(Path(directory), publishes, PUBLISHERS[name], seed))
    if commands:
        import_quietly()
        import tensorflow as tf

        # That its loader is deprecated.
        tf.get_logger().setLevel("ERROR")
        with tempfile.TemporaryDirectory() as root:
            world = World(Path(root), seed, checkpoint_minutes)
            for name in with_what_they_start_from(commands):
                if name not in commands:
                    world.make_reference(name, CASES[name])
                    continue
                share = kills // len(commands) + (commands.index(name) < kills % len(commands))
                record = interrupt(name, CASES[name], world, random.Random(f"{seed} {name}"), share)
                add(name, {**record, "checkpoint_minutes": checkpoint_minutes})
    if failed := [f"{record['case']}: {'; '.join(record['failures'])}" for record in records if record["failures"]]:
        raise InputError(" ".join(failed))


@dataclasses.dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        arguments: of Python; paths are relative to the directory it runs in.
        starts_from: name in that directory -> "case/name", what another case left there, or a file of the world.
        leaves: name in that directory -> its kind, a key of `KINDS`. A name of `starts_from` too is replaced, and has
            to be old or new at every moment.
    """

    arguments: Sequence[str]
    starts_from: Mapping[str, str]
    leaves: Mapping[str, str]


def _case(arguments: str, starts_from: Mapping[str, str], **leaves: str) -> Case:
    return Case(["-m", *arguments.split()], starts_from, leaves)


_CITY = "--format=synthetic --synthetic_users=200 --synthetic_items=150 --synthetic_visits=30"
# Sixteen steps an epoch, so that checkpoints fall within epochs too.
_SHORT = "--epochs=4 --batch_size=128 --steps_per_call=5 --cutoffs=3,10 --rank_samples=20"
_TRAIN = f"rd_tf.train --dataset=dataset --run_dir=run {_SHORT} --dim=8"
_DISTILL = f"pipelines.distill {_CITY} {_SHORT} --discrepancy_start_epoch=2 --dataset=dataset --run_dir=runs"
_TEACH = "rd_tf.teach --teacher=teacher --dataset=dataset --cache=cache"
_EXPORT = "rd_tf.export --run_dir=run --dataset=dataset --export_dir=exports --export_name=model"
_RAW = {CHECK_INS: CHECK_INS}
_DATASET = {"dataset": "prepare synthetic/dataset"}
_TEACHER = {**_DATASET, "teacher": "train teacher/run"}
_FOSSIL = {**_DATASET, "run": "train fossil/run"}
_LISTS = "teacher/top_k/test-k10-target"
# In this order: a case starts from what those before it have left.
CASES = {
    "prepare csv": _case(
        f"rd_tf.prepare --input={CHECK_INS} --min_user_items=3 --dataset=dataset", _RAW, dataset="dataset"
    ),
    "prepare --shards": _case(
        f"rd_tf.prepare --input={CHECK_INS} --shards=3 --dataset=dataset", _RAW, dataset="dataset"
    ),
    "prepare synthetic": _case(f"rd_tf.prepare {_CITY} --dataset=dataset", {}, dataset="dataset"),
    "prepare --force": _case(
        f"rd_tf.prepare {_CITY} --dataset=dataset --force", {"dataset": "prepare csv/dataset"}, dataset="dataset"
    ),
    "train teacher": _case(_TRAIN, _DATASET, run="run"),
    "teach": _case(_TEACH, _TEACHER, cache="cache"),
    "train distilled": _case(
        f"{_TRAIN} --dim=4 --discrepancy_start_epoch=2 --teacher=teacher",
        _TEACHER,
        **{"run": "run", _LISTS: "cache"},
    ),
    "train fossil": _case(f"{_TRAIN} --model=fossil", _DATASET, run="run"),
    "train --force": _case(f"{_TRAIN} --seed=1 --force", _FOSSIL, run="run"),
    "teach --force": _case(f"{_TEACH} --k=5 --force", {**_TEACHER, "cache": "teach/cache"}, cache="cache"),
    "export": _case(_EXPORT, {**_DATASET, "run": "train distilled/run"}, exports="exports"),
    "export --keep_versions": _case(
        f"{_EXPORT} --weights=int8 --keep_versions=1", {**_FOSSIL, "exports": "export/exports"}, exports="exports"
    ),
    "distill": _case(
        f"{_DISTILL} --teacher=large --teacher_dim=8 --student_dim=4 --seeds=0 --export_dir=exports",
        {},
        **{"dataset": "dataset", "exports": "exports", "runs/report.json": "report"},
        **{f"runs/seed-0/{role}": "run" for role in ("teacher", "student", "distilled")},
        **{f"runs/seed-0/{_LISTS}": "cache"},
    ),
}


def with_what_they_start_from(chosen: Sequence[str]) -> list[str]:
    """Cases together with those whose results they start from, in the order of `CASES`."""
    wanted = set(chosen)
    for name in reversed(CASES):
        if name in wanted:
            wanted |= {source.split("/")[0] for source in CASES[name].starts_from.values()} & CASES.keys()
    return [name for name in CASES if name in wanted]


Contents = dict[str, Any]


def file_contents(path: Path) -> Contents:
    """Of every file below, but for locks: relative name -> SHA-256 of its bytes."""
    files = (file for file in path.rglob("*") if not file.is_dir() and file.name != ".lock")
    return {str(file.relative_to(path)): file_sha256(file) for file in files}


def run_contents(path: Path) -> Contents:
    """What must be equal between two finished runs; of an unfinished one nothing, but each file must be readable.

    The seconds and the memory that a run took may differ, and what it printed. A teacher's lists are artefacts of their
    own; checkpoints are not what a finished run is read by.
    """
    import h5py

    from rd_tf.training.checkpoints import list_checkpoints, load_checkpoint

    if not run_directory.is_finished_run(path):
        if (path / run_directory.WEIGHTS).exists():
            h5py.File(path / run_directory.WEIGHTS).close()
        if (path / run_directory.HISTORY).exists():
            _history(path)
        for checkpoint in list_checkpoints(path / run_directory.CHECKPOINT):
            load_checkpoint(checkpoint)
        return {}
    manifest = read_manifest(path / run_directory.MANIFEST, {})
    left_out = {run_directory.LOG, run_directory.CHECKPOINT, "top_k"}
    found = {name: value for name, value in file_contents(path).items() if name.split("/")[0] not in left_out}
    found = {name: value for name, value in found.items() if not fnmatch.fnmatch(name, run_directory.EVENTS)}
    del found[run_directory.MANIFEST]
    may_differ = ("seconds", "peak_memory_bytes", "manifest_sha256")
    found |= {f"{run_directory.MANIFEST}: {name}": manifest[name] for name in manifest if name not in may_differ}
    return {**found, run_directory.HISTORY: _history(path), "TensorBoard": scalars(path)}


def loaded_run_contents(path: Path) -> Contents:
    """The same, and a finished run's model is loaded."""
    from rd_tf.models.registry import load_model

    if run_directory.is_finished_run(path):
        load_model(path)
    return run_contents(path)


def _history(run: Path) -> list[dict[str, str]]:
    with open(run / run_directory.HISTORY, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith("seconds/")} for row in rows]


def scalars(run: Path) -> dict[tuple[str, int], bytes]:
    """What TensorBoard shows of a run: (tag, step) -> value, the last one written, without seconds."""
    import tensorflow as tf

    found = {}
    for path in sorted(run.glob(run_directory.EVENTS)):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name in ("scalars", "") and not value.tag.startswith("seconds/"):
                    found[value.tag, event.step] = value.tensor.SerializeToString(deterministic=True)
    return found


def export_contents(path: Path) -> Contents:
    """Of every model the number of versions and the highest one's files, and the files beside the models.

    Every version is loaded and answers its own warm-up requests, as in a server.
    """
    from rd_tf.serving.publishing import REPORT_FILE
    from rd_tf.serving.server.inference import LoadedVersion, replay_warmup
    from rd_tf.serving.server.settings import Limits

    found: Contents = {}
    for model in (each for each in path.iterdir() if each.is_dir()):
        paths = versions(model)
        for version in paths:
            loaded = LoadedVersion(version, int(version.name), Limits())
            replay_warmup(loaded, version, Limits())
            loaded.close()
        if paths:
            found[f"{model.name}: versions"] = len(paths)
            found |= {f"{model.name}/{name}": value for name, value in file_contents(paths[-1]).items()}
            if (paths[-1] / REPORT_FILE).exists():
                report = read_json(paths[-1] / REPORT_FILE)
                # Of the machine at that moment.
                report.pop("seconds_per_request", None)
                found[f"{model.name}/{REPORT_FILE}"] = report
    beside = {name: value for name, value in file_contents(path).items() if "/" not in name}
    # Without a version the files beside the models are nothing.
    return found and {**found, **beside}


def report_contents(path: Path) -> Contents:
    """What a pipeline's `report.json` says, without the seconds of the trainings."""
    report: Contents = read_manifest(path, {"roles": dict, "export": str})
    for role in report["roles"].values():
        role.pop("seconds", None)
    return report


def differences(one: Contents, other: Contents) -> list[str]:
    """In words, what differs between two artefacts."""
    found = [f"{name} is in one only" for name in one.keys() ^ other.keys()]
    return sorted(found + [f"{name} differs" for name in one.keys() & other.keys() if one[name] != other[name]])


# Kind of artefact -> what must be equal between two of them; empty where nothing finished stands there, as readers see
# it, and an exception where something that no reader can read stands under a final name.
KINDS: dict[str, Callable[[Path], Contents]] = {
    "dataset": file_contents,
    "run": loaded_run_contents,
    "cache": file_contents,
    "exports": export_contents,
    "report": report_contents,
}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What became of a command: its exit code, seconds, seen changes of its files, and all that it printed."""

    code: int
    seconds: float
    changes: int
    said: str

    @property
    def is_killed(self) -> bool:
        """Whether it died by the kill; else it had ended before."""
        return self.code == -signal.SIGKILL


# Seconds after the start, or after so many changes of the files, until the kill.
Moment = tuple[float, int]
_LOOK_SECONDS = 0.002


def attempt(arguments: Sequence[str], directory: Path, moment: Moment | None = None) -> Attempt:
    """Runs this Python in a directory, temporary files beside it, and kills it with all its children at a moment."""
    temporary, log = directory.with_suffix(".temporary"), directory.with_suffix(".log")
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
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
    return Attempt(code, time.monotonic() - begin, changes, log.read_text(errors="replace"))


def _watch(process: subprocess.Popen[bytes], directory: Path, begin: float, moment: Moment | None) -> int:
    """Returns the number of changes when the process has ended or the moment has come."""
    wait, wanted = moment or (float("inf"), 0)
    changes, files = 0, _files(directory)
    since = begin if not wanted else float("inf")
    # Not poll(), which would reap the leader and let its group go.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() - since >= wait:
            break
        if (found := _files(directory)) != files:
            files, changes = found, changes + 1
            if changes == wanted:
                since = time.monotonic()
        time.sleep(_LOOK_SECONDS)
    return changes


def _files(directory: Path) -> set[tuple[str, int, int]]:
    """Path, size and time of everything below."""
    found, directories = set(), [os.fspath(directory)]
    while directories:
        # What goes while we look is a change that the next look sees.
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(directories.pop()):
                status = entry.stat(follow_symlinks=False)
                found.add((entry.path, status.st_size, status.st_mtime_ns))
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
    return found


class World:
    """A directory with undisturbed runs: case -> where it ran, with what it left, and how it went."""

    def __init__(self, root: Path, seed: int, checkpoint_minutes: float) -> None:
        from rd_tf.data.synthetic import synthetic_interactions

        self._root, self._checkpoints = root, f"--checkpoint_minutes={checkpoint_minutes}"
        self.references: dict[str, tuple[Path, Attempt]] = {}
        # Check-ins of 150 users as a user would bring them.
        world = synthetic_interactions(num_users=150, num_items=120, mean_visits=25.0, seed=seed)
        with open(root / CHECK_INS, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("user_id", "item_id", "timestamp"))
            for user, item, at in zip(world.users, world.items, world.timestamps, strict=True):
                writer.writerow((world.user_ids[user], world.item_ids[item - 1], at))

    def make_reference(self, name: str, case: Case) -> tuple[Path, Attempt]:
        """Runs a case undisturbed and keeps what it leaves; an InputError where it fails."""
        directory = self.start(name, case)
        run = self.attempt(case, directory)
        if run.code:
            raise InputError(f"{name} ended with {run.code} though nobody disturbed it: {run.said[-2000:]}")
        self.references[name] = directory, run
        return directory, run

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
        return self.references[name][0] / path if path else self._root / name

    def attempt(self, case: Case, directory: Path, moment: Moment | None = None) -> Attempt:
        """Runs a case in its directory; trainings get the checkpoints asked for."""
        trains = not {"rd_tf.train", "pipelines.distill"}.isdisjoint(case.arguments)
        return attempt([*case.arguments, *([self._checkpoints] if trains else [])], directory, moment)


def interrupt(name: str, case: Case, world: World, generator: random.Random, kills: int) -> dict[str, Any]:
    """Kills one case over and over, until so many commands have died before their end.

    Returns:
        `kills`; `reruns`, commands that were run to their end after kills; `resumed_runs`, those that went on from a
        checkpoint; `ended_before`, commands that had ended when their moment came; the undisturbed command's seconds,
        and of every kill its seconds as a share of those (`killed_at`); what readers found after kills; and the
        failures, in words.
    """
    reference, undisturbed = world.make_reference(name, case)
    killed_at: list[float] = []
    states: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    ended = reruns = resumed = 0

    def moment() -> Moment:
        if len(killed_at) % 2 == 0 and undisturbed.changes:
            return generator.uniform(0, 0.02), generator.randint(1, undisturbed.changes)
        return generator.uniform(0, undisturbed.seconds), 0

    while len(killed_at) < kills:
        directory, before = world.start(name, case), len(killed_at)
        run: Attempt | None = None
        found: list[str] = []
        for _ in range(min(generator.randint(1, 3), kills - before)):
            run = world.attempt(case, directory, moment())
            if not run.is_killed:
                ended += 1
                break
            killed_at.append(round(run.seconds / undisturbed.seconds, 3))
            for path in case.leaves:
                state, troubles = after_kill(case, path, directory, reference, world)
                states[f"{path}: {state}"] += 1
                found += troubles
        if run is None or run.is_killed:
            run = world.attempt(case, directory)
        if len(killed_at) > before:
            reruns += 1
            resumed += "resumed from" in run.said
        found += at_the_end(case, run, directory, reference)
        failures += [f"after {len(killed_at)} kills: {trouble}" for trouble in found]
        if not found:
            shutil.rmtree(directory)
    return {
        "kills": len(killed_at),
        "reruns": reruns,
        "resumed_runs": resumed,
        "ended_before": ended,
        "undisturbed_seconds": significant(undisturbed.seconds),
        "killed_at": killed_at,
        "found_after_kill": dict(sorted(states.items())),
        "failures": failures,
    }


def after_kill(case: Case, path: str, directory: Path, reference: Path, world: World) -> tuple[str, list[str]]:
    """The state of what a killed command leaves under a path, and what is wrong with it."""
    contents, was_there = KINDS[case.leaves[path]], path in case.starts_from
    if not (directory / path).exists():
        return "nothing", [f"{path} is gone after a kill"] if was_there else []
    try:
        found = contents(directory / path)
    # Whatever a reader stumbles over is what is looked for.
    except Exception as error:
        return "half-written", [f"{path} after a kill: {type(error).__name__}: {error}"]
    if not found:
        return "unfinished", [f"{path} is unfinished after a kill, though one was there"] if was_there else []
    if was_there and found == contents(world.source(case.starts_from[path])):
        return "old", []
    differ = differences(found, contents(reference / path))
    if case.leaves[path] == "exports":
        differ = [line for line in differ if not may_come_later(line)]
    return "new", [f"{path} after a kill: {'; '.join(differ)}"] if differ else []


def may_come_later(line: str) -> bool:
    """Whether a killed export may differ so: an old version goes, and the files beside the models come, at the end."""
    return "/" not in line and (line.endswith(" is in one only") or ": versions" in line)


def at_the_end(case: Case, run: Attempt, directory: Path, reference: Path) -> list[str]:
    """What is wrong after a command that was left to end."""
    if run.code:
        return [f"the command ended with {run.code}: {run.said[-2000:].strip()}"]
    troubles = []
    for path, kind in case.leaves.items():
        try:
            differ = differences(*(KINDS[kind](place / path) for place in (directory, reference)))
        except Exception as error:
            differ = [f"{type(error).__name__}: {error}"]
        if differ:
            troubles.append(f"{path} at the end: {'; '.join(differ)}")
    left = {name for name in file_contents(directory) if ".tmp-" in name or f"/{run_directory.CHECKPOINT}/" in name}
    left |= {path.name for path in directory.iterdir()} ^ {path.name for path in reference.iterdir()}
    return troubles + ([f"left over at the end: {', '.join(sorted(left))}"] if left else [])


# Case -> --keep_versions.
PUBLISHERS = {"publish": 0, "publish --keep_versions": 2}
_STARTED, _WRITING, _WRITTEN = range(3)
_MOMENTS = ("before writing", "while writing", "before appearing", "after appearing")
_TIMED = 7
# A little over the whole, so that the end of a publish is met as often as its other moments.
_LATEST = 1.15
# As in a SavedModel: some files in folders, some small, some that take several writes.
_VERSION_FILES = {
    "saved_model.pb": 30_000,
    "variables/variables.index": 500,
    "variables/variables.data-00000-of-00001": 300_000,
    "assets/users.txt": 20_000,
    "assets/items.txt": 20_000,
    "assets.extra/tf_serving_warmup_requests": 1_000,
    "assets.extra/report.json": 300,
}
_VERSION_MANIFEST = "manifest.json"
_CHUNK = 16_384

Publish = Callable[[Path, int, int, Callable[[int], None]], None]


def publish_version(directory: Path, keep_versions: int, seed: int, tell: Callable[[int], None]) -> None:
    """Publishes one version and tells how far it has come."""
    with publishing(directory, keep_versions) as new:
        tell(_WRITING)
        write_version(new.directory, seed)
        tell(_WRITTEN)


def interrupt_publishers(
    directory: Path, publishes: int, keep_versions: int, seed: int, publish: Publish = publish_version
) -> dict[str, Any]:
    """Lets publishers die before their end until `publishes` of them have, and reads beside them.

    Args:
        directory: of the served model, empty.
        publishes: kills.
        keep_versions: as in `publishing`.
        seed: of the moments and of the files.
        publish: what a child does.

    Returns:
        kills by moment, publishes that ended, seconds, what the reader counted (see `VersionReader.counts`), what a
        last publish left: `leftovers`, names that should not be there, and `versions`; and the failures, in words.
    """
    fork, generator, reader = multiprocessing.get_context("fork"), random.Random(seed), VersionReader(directory, seed)
    # How far a publisher has come, and when it told so.
    step, told = multiprocessing.RawValue("i"), multiprocessing.RawValue("d")
    killed, begin = dict.fromkeys(_MOMENTS, 0), time.monotonic()
    whole: list[float] = []
    tail: list[float] = []

    def run(number: int, dies_at: int | None, after: float) -> bool:
        """Whether the publisher had ended before it was to die."""

        def tell(reached: int) -> None:
            step.value, told.value = reached, time.monotonic()
            if reached == dies_at:
                # The signal's default ends a process as SIGKILL does, and nobody has to wait for the moment.
                signal.setitimer(signal.ITIMER_REAL, max(after, 1e-6))

        def work() -> None:
            tell(_STARTED)
            publish(directory, keep_versions, number, tell)

        child = fork.Process(target=work)
        child.start()
        while child.is_alive():
            reader.poll()
        if child.exitcode not in (0, -signal.SIGALRM):
            raise RuntimeError(f"a publisher ended with {child.exitcode}; its traceback is above")
        return child.exitcode == 0

    for number in range(_TIMED):
        started = time.monotonic()
        run(number, None, 0.0)
        whole.append(time.monotonic() - started)
        tail.append(time.monotonic() - told.value)
    ended = 0
    while sum(killed.values()) < publishes:
        number += 1
        highest = reader.highest()
        at, seconds = ((_STARTED, whole), (_WRITTEN, tail))[number % 2]
        if run(number, at, generator.uniform(0, _LATEST * statistics.median(seconds))):
            ended += 1
        else:
            killed[_MOMENTS[3 if reader.highest() > highest else step.value]] += 1
    run(number + 1, None, 0.0)
    reader.poll()
    left = versions(directory)
    known = {".lock", LAST_VERSION_FILE, *(path.name for path in left)}
    record = {
        "killed": killed,
        "ended": ended,
        "publish_ms": round(1e3 * statistics.median(whole), 2),
        "seconds": round(time.monotonic() - begin, 1),
        **reader.counts,
        "leftovers": sorted({path.name for path in directory.iterdir()} - known),
        "versions": len(left),
        "broken_versions": sum(read_version(path)[0] != "whole" for path in left),
    }
    bad = [name for name in ("partial", "reused", "lower", "leftovers", "broken_versions") if record[name]]
    return {**record, "failures": [f"{name}: {record[name]}" for name in bad] + reader.counts["examples"]}


def write_version(directory: Path, seed: int) -> None:
    """Fills a directory with random files; `manifest.json`, first of all, tells the SHA-256 of each."""
    generator = random.Random(seed)
    contents = {name: generator.randbytes(size) for name, size in _VERSION_FILES.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (directory / _VERSION_MANIFEST).write_text(json.dumps(digests))
    for name, content in contents.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            for begin in range(0, len(content), _CHUNK):
                file.write(content[begin : begin + _CHUNK])


def read_version(path: Path) -> tuple[str, str]:
    """Reads every file of a version that was seen under its number.

    A server loads a version within seconds of seeing it and serves it from memory, so a version that vanishes as a
    whole costs at most a load that is tried again; a part of one under its number is what must never be.

    Returns:
        "whole" and what the manifest holds; or "vanished" and "", where the version has lost its number; or "partial"
        and what is wrong with a version that still has its number.
    """
    name, trouble = _VERSION_MANIFEST, ""
    try:
        manifest = (path / name).read_text()
        digests = json.loads(manifest)
        if set(digests) != set(_VERSION_FILES):
            trouble = "files are missing in the manifest"
        for name, digest in digests.items():
            if file_sha256(path / name) != digest:
                trouble = f"{name} is not what the manifest says"
    except (FileNotFoundError, json.JSONDecodeError) as error:
        trouble = f"{name}: {error}"
    if not trouble:
        return "whole", manifest
    # Numbers are never used again, so what is there is what was read.
    return ("partial", f"{path.name}: {trouble}") if path.exists() else ("vanished", "")


class VersionReader:
    """Polls a served model's directory and keeps count of what it finds.

    Attributes:
        counts: `polls`, `reads`, `whole`, `partial`, `vanished`, `reused` (a number with other files than before),
            `lower` (the highest version was lower than before) and `examples` of what must not be.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory, self._random = directory, random.Random(seed)
        self._manifests: dict[str, str] = {}
        self._seen = 0
        kinds = ("polls", "reads", "whole", "partial", "vanished", "reused", "lower")
        self.counts: dict[str, Any] = {**dict.fromkeys(kinds, 0), "examples": []}

    def highest(self) -> int:
        """The highest version, 0 without any."""
        return max((int(path.name) for path in versions(self._directory)), default=0)

    def poll(self) -> None:
        """Reads the highest version, the lowest (the next to be removed) and one of all."""
        found = versions(self._directory)
        self.counts["polls"] += 1
        highest = int(found[-1].name) if found else 0
        if highest < self._seen:
            self._wrong("lower", f"highest version {highest} after {self._seen}")
        self._seen = max(highest, self._seen)
        for path in dict.fromkeys((found[-1], found[0], self._random.choice(found))) if found else ():
            kind, told = read_version(path)
            self.counts["reads"] += 1
            if kind == "partial":
                self._wrong("partial", told)
                continue
            self.counts[kind] += 1
            if kind == "whole" and self._manifests.setdefault(path.name, told) != told:
                self._wrong("reused", f"{path.name} has other files than before")

    def _wrong(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        if len(self.counts["examples"]) < 5:
            self.counts["examples"].append(example)


if __name__ == "__main__":
    minutes = flag("checkpoint_minutes", 0.001, "--checkpoint_minutes of the trainings. 0: no checkpoints.", 0.0)
    run_benchmark(interrupted, minutes)
