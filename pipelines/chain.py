"""A stretch of training in a process of its own, and the evidence that it owes to results/."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from pipelines.check_evidence import check_evidence
from pipelines.evidence import is_complete, keep_evidence
from pipelines.run_record import read_metrics
from rd_tf import run_directory
from rd_tf.storage import InputError


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
    """

    title: str
    module: str
    arguments: list[str]
    log: Path
    evidence: dict[Path, Path]
    split: str
    per_user: bool
    flags: dict[Path, dict[str, Any]] = dataclasses.field(default_factory=dict)

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
                split = read_metrics(target)["split"]
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
