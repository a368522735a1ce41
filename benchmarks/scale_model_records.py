"""Records of results/benchmarks/, by file and case."""

import json
import re
from pathlib import Path
from typing import Any

from rd_tf.storage import InputError

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


class Records:
    """Reads the records of benchmarks.

    Args:
        directory: of the JSON lines.
    """

    def __init__(self, directory: Path = RESULTS) -> None:
        self._directory = directory

    def find(self, file: str, case: str) -> dict[str, Any]:
        """The record of a case, or of the machine where the case is "machine".

        Args:
            file: name without ending.
            case: its name; one ending in "*" is the record of the largest number in a name that begins so.

        Raises:
            InputError: there is no such file or case.
        """
        path, again = (
            self._directory / f"{file}.jsonl",
            f"make it with python -m benchmarks.{_COMMANDS.get(file, file)}",
        )
        if not path.is_file():
            raise InputError(f"{path} is missing, from which the model takes {case!r}; {again}")
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = [record for record in records if _matches(record.get("case", record["benchmark"]), case)]
        if not found:
            raise InputError(f"{path} has no case {case!r}, which the model needs; {again}")
        return max(found, key=lambda record: _number(record.get("case", "")))

    def value(self, file: str, case: str, key: str) -> float:
        """A number of a record.

        Raises:
            InputError: there is no such file, case or number.
        """
        found: Any = self.find(file, case)
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise InputError(
                f"{self._directory / file}.jsonl: the case {case!r} has no number {key!r}; "
                f"make it again with python -m benchmarks.{_COMMANDS.get(file, file)}"
            )
        return float(found)


# What writes a file that is not called after its benchmark.
_COMMANDS = {"serving_million": "serving --items=1000000 --users=1000"}


def _matches(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def _number(case: str) -> int:
    return max([0, *(int(digits.replace(",", "")) for digits in re.findall(r"[\d,]*\d", case))])
