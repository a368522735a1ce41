"""The authors' code in a process of its own, with another Python: the side that asks."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf.storage import InputError

SCRIPT = Path(__file__).with_name("reference.py")
_FILES = ("train_caser.py", "distill_caser.py", "evaluation.py", "interactions.py")


class ReferenceProcess:
    """Asks `benchmarks/reference.py`; made by `reference_process`.

    Args:
        process: the child.
        directory: its working directory, where arrays are handed over.
    """

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._directory = directory
        self.torch = self._answer().get("torch")

    def make(self, kind: str, arrays: dict[str, Any], **settings: Any) -> None:
        """Prepares what `run` runs next.

        Args:
            kind: a key of `benchmarks.reference.KINDS`.
            arrays: its data.
            settings: its other arguments (JSON values).

        Raises:
            InputError: the authors' code ended in an error.
        """
        data = self._directory / "data.npz"
        np.savez(data, **arrays)
        self._ask({"make": kind, "data": str(data), **settings})

    def run(self) -> dict[str, float]:
        """Runs what was made, once; its times in seconds.

        Raises:
            InputError: the authors' code ended in an error.
        """
        return self._ask({"run": True})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"it ended with exit code {self._process.wait()}"}
        if "error" in answer:
            raise InputError(
                f"the authors' code cannot be measured ({answer['error']}); check --reference and --reference_python"
            )
        return answer


@contextlib.contextmanager
def reference_process(reference: str, python: str, script: Path = SCRIPT) -> Iterator[ReferenceProcess | None]:
    """Starts the authors' code, and ends it with the block.

    Its threads are left as their libraries set them: while the child waits for a request they sleep after a few
    milliseconds of spinning, and OMP_WAIT_POLICY=PASSIVE would rather change the speed of the authors' code.

    Args:
        reference: a checkout of it; empty gives None.
        python: an interpreter with torch, numpy and scipy; empty for this one.
        script: what answers.

    Raises:
        InputError: the checkout or the interpreter cannot be used.
    """
    if not reference:
        yield None
        return
    for name in _FILES:
        if not (Path(reference) / name).is_file():
            raise InputError(f"--reference={reference} holds no {name}; name a checkout of the authors' repository")
    with tempfile.TemporaryDirectory() as directory:
        command = [python or sys.executable, "-B", str(script), str(Path(reference).resolve())]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd=directory, text=True
            )
        except OSError:
            raise InputError(f"--reference_python={python} is no program that runs; name a Python") from None
        try:
            yield ReferenceProcess(process, Path(directory))
        finally:
            process.kill()
            process.communicate()
