"""One flag of a cell at a time, varied on the validation split, for the plots."""

from pathlib import Path
from typing import Any

from pipelines.cells import Cell
from pipelines.chain import Chain
from pipelines.model_fingerprint import model_fingerprint
from pipelines.roles import ROLES
from pipelines.stages import stages
from rd_tf.command_line import flag_lines
from rd_tf.storage import InputError

# Flag -> values around the authors' own, which stands in the middle; the cell's own value joins them.
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
        targets = {role: self._target(DEFAULT, role) for role in ROLES}
        flags = stages(self._default_runs, self._seed, {**self._values, "split": _SPLIT})
        return Chain(
            title=self._title.format(_SPLIT),
            module="pipelines.distill",
            arguments=[
                *self._arguments,
                f"--run_dir={self._root}",
                f"--seeds={self._seed}",
                f"--export_dir={self._root / 'exports'}",
                f"--split={_SPLIT}",
                "--results=",
            ],
            log=self._root / "default.log",
            evidence={path: targets[role] for role, path in self._default_runs.items()},
            split=_SPLIT,
            per_user=False,
            flags={targets[role]: flags[role] for role in ROLES},
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
