"""Directories in which commands run, and what each leaves undisturbed."""

import dataclasses
import shutil
import tempfile
from pathlib import Path

from benchmarks.interrupted_commands_cases import Case, write_check_ins
from benchmarks.interrupted_commands_process import Attempt, Moment, attempt
from rd_tf.storage import InputError

# The commands that write checkpoints.
_TRAINING = {"rd_tf.train", "pipelines.distill"}


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
        trains = not _TRAINING.isdisjoint(case.arguments)
        checkpoints = (f"--checkpoint_minutes={self._checkpoint_minutes}",) if trains else ()
        return attempt((*case.arguments, *checkpoints), directory, temporary, moment)
