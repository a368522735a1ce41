"""The trainings behind the paper's tables and plots, as processes beside each other, each on its share of the cores."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from pipelines.distill import LARGE, distill_flags, stages
from pipelines.records import (
    COLUMNS,
    ROLES,
    check_evidence,
    is_complete,
    keep_evidence,
    model_fingerprint,
    read_metrics,
)
from rd_tf import run_directory
from rd_tf.command_line import flag_lines
from rd_tf.data.dataset import load_manifest
from rd_tf.flag_definitions import Protocol
from rd_tf.storage import InputError

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


Say = Callable[[str], None]
# Flag -> values around the authors' own, which stands in the middle; the cell's own value is added to them.
SWEEPS: dict[str, tuple[float, ...]] = {
    "k": (2, 5, 10, 20, 50),
    "position_temperature": (0.2, 0.5, 1.0, 5.0, 10.0),
    "discrepancy_sharpness": (0.01, 0.03, 0.1, 0.3, 1.0),
    "alpha": (0.25, 0.5, 1.0, 2.0, 4.0),
    "student_dim": (10, 25, 50, 75, 100),
}
# The cell's own settings, where every sweep starts.
DEFAULT = "default"
_SPLIT = "validation"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A dataset and a model, by name.

    Attributes:
        dataset: the dataset directory below --datasets_dir.
        model: the flagfile `<configs_dir>/<dataset>/<model>.cfg`, whatever the model in it is.
    """

    dataset: str
    model: str

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.model}"

    def flagfile(self, configs_dir: str) -> Path:
        """Where the cell's settings are."""
        return Path(configs_dir) / self.dataset / f"{self.model}.cfg"

    def arguments(self, configs_dir: str, datasets_dir: str) -> list[str]:
        """The cell's arguments of `pipelines.distill`, the flagfile first."""
        return [f"--flagfile={self.flagfile(configs_dir)}", f"--dataset={Path(datasets_dir) / self.dataset}"]


def parse_cells(texts: list[str], flag: str) -> list[Cell]:
    """Reads cells such as gowalla/caser.

    Raises:
        InputError: one has not the form <dataset>/<model>, or stands twice.
    """
    for text in texts:
        parts = text.split("/")
        if len(parts) != 2 or not all(part and part == part.strip() and part not in (".", "..") for part in parts):
            raise InputError(f"--{flag}: {text!r} is no cell; write <dataset>/<model>, such as gowalla/caser")
    if len(set(texts)) < len(texts):
        raise InputError(f"--{flag}={','.join(texts)} names a cell twice; name each once")
    return [Cell(*text.split("/")) for text in texts]


@dataclasses.dataclass(frozen=True)
class Chain:
    """One child process, `python -m <module> <arguments>`.

    Attributes:
        title: for people.
        module: which command.
        arguments: its flags.
        log: file that gets its output.
        evidence: finished run directory -> directory of results that gets its evidence.
        split: that every one of the runs is held to.
        per_user: whether the evidence has `per_user.parquet`.
        flags: directory of evidence -> every flag of `rd_tf.train` that its run has; those that nobody knows are left
            out.
        after: titles of chains that have to finish first, where they are run together.
    """

    title: str
    module: str
    arguments: list[str]
    log: Path
    evidence: dict[Path, Path]
    split: str
    per_user: bool
    flags: dict[Path, dict[str, Any]] = dataclasses.field(default_factory=dict)
    after: frozenset[str] = frozenset()

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module, *self.arguments]

    def is_done(self) -> bool:
        """Whether results hold all evidence.

        Raises:
            InputError: they hold that of another split, other settings or other data.
        """
        for target in self.evidence.values():
            if (target / run_directory.METRICS).is_file():
                split = Protocol.of(read_metrics(target)["split"]).part
                if split != self.split:
                    raise InputError(f"{target} is of the split {split}, not {self.split}; name another --results")
            if target in self.flags and run_directory.is_finished_run(target):
                check_evidence(target, self.flags[target])
        return all(is_complete(target, self.per_user) for target in self.evidence.values())

    def keep(self) -> None:
        """Copies the evidence of the finished runs.

        Raises:
            InputError: a run has not finished.
        """
        for run_dir, target in self.evidence.items():
            keep_evidence(run_dir, target, self.per_user)


def run_chains(chains: Sequence[Chain], at_once: int, say: Say = print) -> list[str]:
    """Runs chains, and keeps each one's evidence as soon as it has finished.

    A chain that fails stops no other but those that come after it; its log stays, and the next attempt is written after
    it. When this process is
    stopped, so are its children; what they had finished is kept in their run directories, and the same chains go on
    from there.

    Args:
        chains: in the order of their beginning.
        at_once: chains that run at the same time. Where the machine allows, each has as many cores as the other.
        say: gets a line for every chain that begins or ends.

    Returns:
        A phrase for every chain that failed, naming its log.
    """
    waiting, running, failures = list(chains), dict[Child, Chain](), list[str]()
    with Children(at_once) as children:
        while waiting or running:
            while children.has_room() and (chain := _next(waiting, running.values())) is not None:
                waiting.remove(chain)
                say(f"{chain.title}: begins, {len(waiting)} after it, output in {chain.log}")
                running[children.start(chain.command, chain.log)] = chain
            for child in children.ended():
                chain = running.pop(child)
                trouble = _finish(chain, child, say)
                failures += trouble
                if trouble:
                    failures += _give_up(waiting, chain.title)
    return failures


def _next(waiting: list[Chain], running: Iterable[Chain]) -> Chain | None:
    """The first chain that has to wait for no other."""
    unfinished = {chain.title for chain in (*waiting, *running)}
    return next((chain for chain in waiting if not chain.after & unfinished), None)


def _give_up(waiting: list[Chain], failed: str) -> list[str]:
    """Takes away the chains that come after one that failed, and those after them."""
    failures = []
    for chain in [chain for chain in waiting if failed in chain.after]:
        if chain in waiting:
            waiting.remove(chain)
            failures += [f"{chain.title} was not begun, since {failed} failed", *_give_up(waiting, chain.title)]
    return failures


def _finish(chain: Chain, child: Child, say: Say) -> list[str]:
    minutes = child.seconds / 60
    trouble = f"ended with {child.process.returncode}" if child.process.returncode else ""
    if not trouble:
        try:
            chain.keep()
        # A damaged file or a full disk fails this chain; the others go on.
        except (InputError, OSError, ValueError) as error:
            trouble = str(error)
    if trouble:
        say(f"{chain.title}: failed after {minutes:.1f} minutes")
        return [f"{chain.title} {trouble} (see {chain.log})"]
    say(f"{chain.title}: finished in {minutes:.1f} minutes")
    return []


def cell_chain(
    cell: Cell,
    seed: int,
    arguments: list[str],
    values: dict[str, Any] | None,
    run_dir: Path,
    results: Path,
    split: str,
) -> Chain:
    """Trains and evaluates the three roles of a cell with one seed.

    `pipelines.distill` holds its run directory for itself, so every seed has one of its own, and the runs lie in
    `<run_dir>/<dataset>/<model>/seed-N/seed-N/<role>`. For the same reason it has its own exports.

    Args:
        cell: which.
        seed: of the students.
        arguments: the cell's own, of `pipelines.distill`.
        values: the flags that they come to; None where nobody knows, since the flagfile is not there.
        run_dir: directory of all runs.
        results: directory of all evidence.
        split: "validation" or "test".
    """
    root = run_dir / cell.dataset / cell.model / f"seed-{seed}"
    targets = {role: results / cell.dataset / cell.model / root.name / role for role in ROLES}
    return _all_roles(
        title=f"{cell.name} seed {seed}",
        arguments=arguments,
        values=values,
        root=root,
        seed=seed,
        exports=run_dir / "exports" / root.name,
        log=root.with_name(f"{root.name}.log"),
        targets=targets,
        split=split,
        per_user=True,
    )


def _all_roles(
    *,
    title: str,
    arguments: list[str],
    values: dict[str, Any] | None,
    root: Path,
    seed: int,
    exports: Path,
    log: Path,
    targets: dict[str, Path],
    split: str,
    per_user: bool,
) -> Chain:
    runs = {role: root / f"seed-{seed}" / role for role in ROLES}
    flags = stages(runs, seed, {**values, "split": split}) if values else {}
    places = [f"--run_dir={root}", f"--export_dir={exports}", "--results="]
    return Chain(
        title=title,
        module="pipelines.distill",
        arguments=[*arguments, *places, f"--seeds={seed}", f"--split={split}"],
        log=log,
        evidence={runs[role]: targets[role] for role in ROLES},
        split=split,
        per_user=per_user,
        flags={targets[role]: of_role for role, of_role in flags.items()},
    )


def run_of(cell: Cell, seed: int, role: str, run_dir: Path) -> Path:
    """The run directory of one role."""
    return run_dir / cell.dataset / cell.model / f"seed-{seed}" / f"seed-{seed}" / role


class SweepPlan:
    """The trainings of a cell's sweeps with one seed.

    The three roles are trained once with the cell's settings; every other value distils a student from that teacher,
    and --student_dim also trains one alone.

    Args:
        cell: whose flags.
        seed: of the students.
        arguments: the cell's arguments of `pipelines.distill`.
        values: the flags that they come to.
        run_dir: directory of all runs.
        results: directory of all evidence.
    """

    def __init__(
        self, cell: Cell, seed: int, arguments: list[str], values: dict[str, Any], run_dir: Path, results: Path
    ) -> None:
        self._title = f"{cell.name} {{}} seed {seed}"
        self._seed, self._arguments, self._values = seed, arguments, values
        self._root = run_dir / "sweeps" / cell.dataset / cell.model / f"seed-{seed}"
        self._results = results / "sweeps" / cell.dataset / cell.model
        self._default_runs = {role: self._root / f"seed-{seed}" / role for role in ROLES}

    def default(self) -> Chain:
        """Trains the three roles with the cell's settings."""
        return _all_roles(
            title=self._title.format(_SPLIT),
            arguments=self._arguments,
            values=self._values,
            root=self._root,
            seed=self._seed,
            exports=self._root / "exports",
            log=self._root / "default.log",
            targets={role: self._target(DEFAULT, role) for role in ROLES},
            split=_SPLIT,
            per_user=False,
        )

    def points(self, flag: str) -> list[Chain]:
        """Trains the students of every other value of one flag."""
        roles = ("student", "distilled") if flag == "student_dim" else ("distilled",)
        kind = type(self._values[flag])
        others = sorted({kind(value) for value in SWEEPS[flag]} - {self._values[flag]})
        return [self._point(flag, value, role) for value in others for role in roles]

    def has_teacher(self) -> bool:
        """Whether the teacher of all points is there to distil from: the one of the evidence, if there is any."""
        there = model_fingerprint(self._default_runs["teacher"])
        return there is not None and model_fingerprint(self._target(DEFAULT, "teacher")) in (None, there)

    def _point(self, flag: str, value: float, role: str) -> Chain:
        name = f"{flag}={value:g}"
        changed = {**self._values, flag: value, "split": _SPLIT}
        directory = self._root / name
        paths = {"teacher": self._default_runs["teacher"], **{one: directory / one for one in ("student", "distilled")}}
        flags, target = stages(paths, self._seed, changed)[role], self._target(name, role)
        return Chain(
            title=self._title.format(f"{name} {role}"),
            module="rd_tf.train",
            arguments=flag_lines(flags).splitlines(),
            log=directory / f"{role}.log",
            evidence={paths[role]: target},
            split=_SPLIT,
            per_user=False,
            flags={target: flags},
        )

    def _target(self, name: str, role: str) -> Path:
        return self._results / name / f"seed-{self._seed}" / role


def check_sweeps(flags: list[str]) -> list[str]:
    """The flags, if all of them have values to sweep.

    Raises:
        InputError: one has none, or stands twice.
    """
    if len(set(flags)) < len(flags):
        raise InputError(f"--sweeps={','.join(flags)} names a flag twice; name each once")
    for flag in flags:
        if flag not in SWEEPS:
            raise InputError(f"--sweeps: {flag!r} is none of {', '.join(SWEEPS)}")
    return flags


def check_trainable(arguments: list[str]) -> None:
    """Refuses before training what would come out after hours of it.

    Args:
        arguments: a cell's, of `pipelines.distill`; the first is its flagfile.

    Raises:
        InputError: the flagfile or the dataset is missing or cannot be used, a metric of the tables would be, or the
            flagfile names another teacher than the one that is trained.
    """
    values = distill_flags(arguments)
    load_manifest(values["dataset"])
    if values["teacher"] != LARGE:
        raise InputError(
            f"{arguments[0]} has --teacher={values['teacher']}; write --teacher={LARGE}, since a cell trains its own "
            "teacher with the flagfile's settings"
        )
    cutoffs = {name.partition("@")[2] for name in COLUMNS} - {""}
    if not cutoffs <= {text.strip() for text in values["cutoffs"]}:
        wanted = ",".join(sorted(cutoffs, key=int))
        raise InputError(f"{arguments[0]} has --cutoffs={','.join(values['cutoffs'])}; the tables need {wanted} too")
