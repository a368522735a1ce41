"""What every benchmark shares: the machine's peaks, repeats and pairs, JSON lines and the table."""

import concurrent.futures
import dataclasses
import datetime
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.floors import Work
from rd_tf import run_directory
from rd_tf.storage import InputError, write_text

S = TypeVar("S")
T = TypeVar("T")
_MATRIX = 2048
_COPY_BYTES = 2**28
_TRIALS = 5
# Table columns: heading and the record's key.
_COLUMNS = {
    "case": "case",
    "median": "median",
    "min": "min",
    "max": "max",
    "unit": "unit",
    "CPU s": "cpu_s",
    "requests": "requests",
    "failed": "failed",
    "malformed": "malformed",
    "not refused": "accepted",
    "versions": "versions",
    "p50 ms": "p50",
    "p99 ms": "p99",
    "requests/s": "requests_per_s",
    "rows/s": "rows_per_s",
    "first MB": "first_rss_mb",
    "MB": "rss_mb",
    "first files": "first_open_files",
    "files": "open_files",
    "floor": "floor",
    "share of floor": "share_of_floor",
    "all-rows floor": "all_rows_floor",
    "authors'": "reference_median",
    "ratio": "ratio",
    "x smallest": "ratio_to_smallest",
    "MAP": "map",
    "x float32": "map_ratio",
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where a benchmark ran and what the machine can do at best.

    Attributes:
        processor: CPU model.
        cores: that this process may use.
        tensorflow: version.
        date: ISO date.
        git_revision: of this repository.
        peak_gflops: 10^9 operations a second of a large float32 `tf.matmul`, best of 5.
        bandwidth_gb: 10^9 bytes a second, read and written, of a large copy by all cores, best of 5.
    """

    processor: str
    cores: int
    tensorflow: str
    date: str
    git_revision: str | None
    peak_gflops: float
    bandwidth_gb: float

    def record(self) -> dict[str, Any]:
        """The machine line."""
        return {"benchmark": "machine", **dataclasses.asdict(self)}


def measure_machine() -> Machine:
    """Looks the machine up and measures its peaks; takes about two seconds."""
    found = run_directory.environment()
    return Machine(
        processor=found["machine"]["processor"],
        cores=found["machine"]["cores"],
        tensorflow=found["versions"]["tensorflow"],
        date=datetime.date.today().isoformat(),
        git_revision=found["git_revision"],
        peak_gflops=significant(_peak_gflops()),
        bandwidth_gb=significant(_bandwidth_gb(found["machine"]["cores"])),
    )


def _peak_gflops() -> float:
    import tensorflow as tf

    from rd_tf.runtime import blocks_at_once

    matrix = tf.ones((_MATRIX, _MATRIX))
    products = blocks_at_once()
    with concurrent.futures.ThreadPoolExecutor(products) as pool:

        def multiply() -> None:
            list(pool.map(lambda _: tf.matmul(matrix, matrix).numpy(), range(products)))

        return products * 2 * _MATRIX**3 / min(seconds_of(multiply) for _ in range(_TRIALS)) / 1e9


def _bandwidth_gb(cores: int) -> float:
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:

        def copy() -> None:
            # NumPy copies without holding the interpreter's lock.
            list(pool.map(lambda part: np.copyto(*part), parts))

        return 2 * _COPY_BYTES / min(seconds_of(copy) for _ in range(_TRIALS)) / 1e9


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One measured case; times in seconds, whatever unit they are shown in, and memory in its own unit.

    Attributes:
        case: its name.
        unit: what a value is shown as, "ms" or "s" and per what.
        seconds: one of every repeat.
        floor: the least work a unit could be done with; None where no floor applies.
        reference: the times of the authors' code, pair by pair; empty without it.
        all_rows: the least work where an optimizer by its definition moves every row of the tables.
        extra: further values of the JSON line.
    """

    case: str
    unit: str
    seconds: Sequence[float]
    floor: Work | None = None
    reference: Sequence[float] = ()
    all_rows: Work | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def record(self, benchmark: str, machine: Machine) -> dict[str, Any]:
        """The case's JSON line."""
        factor = 1e3 if self.unit.startswith("ms") else 1.0
        values = [significant(second * factor) for second in self.seconds]
        median = statistics.median(values)
        record = {"benchmark": benchmark, "case": self.case, "unit": self.unit, "median": significant(median)}
        record |= {"min": min(values), "max": max(values), "repeats": values}
        if self.floor is not None:
            floor = self.floor.seconds(machine.peak_gflops, machine.bandwidth_gb) * factor
            record |= {"floor": significant(floor), "floor_flops": round(self.floor.flops)}
            record["floor_bytes"] = round(self.floor.bytes)
            record["share_of_floor"] = significant(floor / median)
        if self.all_rows is not None:
            floor = self.all_rows.seconds(machine.peak_gflops, machine.bandwidth_gb) * factor
            record |= {"all_rows_floor": significant(floor), "all_rows_bytes": round(self.all_rows.bytes)}
        if self.reference:
            ratios = [theirs / ours for ours, theirs in zip(self.seconds, self.reference, strict=True)]
            record["reference_median"] = significant(statistics.median(self.reference) * factor)
            record["ratio"] = significant(statistics.median(ratios))
            record["ratios"] = [significant(ratio) for ratio in ratios]
        return {**record, **self.extra}


class Report:
    """Prints a JSON line as soon as a case is measured, and the table at the end.

    Args:
        benchmark: its name.
        machine: where it runs; its line comes first.
        output: a file that gets the JSON lines too; empty for none.
    """

    def __init__(self, benchmark: str, machine: Machine, output: str = "") -> None:
        self._benchmark = benchmark
        self._machine = machine
        self._output = output
        self.records: list[dict[str, Any]] = []
        self.add_record(machine.record())

    def add(self, measurement: Measurement) -> None:
        """Prints a case."""
        self.add_record(measurement.record(self._benchmark, self._machine))

    def add_record(self, record: dict[str, Any]) -> None:
        """Prints a JSON line of any kind."""
        self.records.append(record)
        print(json.dumps(record, allow_nan=False), flush=True)

    def finish(self) -> None:
        """Prints the table and writes the file."""
        print("\n" + table([record for record in self.records if "case" in record]), flush=True)
        if self._output:
            lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in self.records)
            write_text(self._output, lines)


def check_output(output: str) -> None:
    """Refuses a file that could not be written, before anything is measured.

    Raises:
        InputError: it is a directory.
    """
    if output and Path(output).is_dir():
        raise InputError(f"--output={output} is a directory; name a file")


def check_cases(cases: Sequence[str], known: Sequence[str]) -> list[str]:
    """The cases to measure, in the order of `known`; all where none are named.

    Raises:
        InputError: an unknown case.
    """
    for case in cases:
        if case not in known:
            raise InputError(f"--cases={case} is no case of this benchmark; choose from {','.join(known)}")
    return [case for case in known if not cases or case in cases]


def seconds_of(action: Callable[[], Any]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def take_pairs(ours: Callable[[], S], theirs: Callable[[], T] | None, repeats: int) -> tuple[list[S], list[T]]:
    """Measures in turn, ours first, so that both of a pair meet the machine in the same state.

    Args:
        ours: one repeat.
        theirs: one repeat of the authors' code, or None.
        repeats: number of pairs; each side runs once more before them, to warm up.
    """
    first: list[S] = []
    second: list[T] = []
    for _ in range(repeats + 1):
        first.append(ours())
        if theirs is not None:
            second.append(theirs())
    return first[1:], second[1:]


def table(records: Sequence[dict[str, Any]]) -> str:
    """The records as aligned text."""
    rows = cells(records)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    is_text = [heading in ("case", "unit") for heading in rows[0]]
    lines = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def cells(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A table's rows as text, the headings first; a column that no record fills is left out."""
    columns = {heading: key for heading, key in _COLUMNS.items() if any(key in record for record in records)}
    return [list(columns), *[[_as_text(record.get(key)) for key in columns.values()] for record in records]]


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def significant(value: float) -> float:
    """Four significant digits: more is noise."""
    return float(f"{value:.4g}")


def resident_bytes(kind: str = "VmRSS") -> int:
    """Memory of this process from /proc: VmRSS now, VmHWM its peak, RssAnon without mapped files; in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return run_directory.peak_memory_bytes()
    found = [line.split()[1] for line in lines if line.startswith(f"{kind}:")]
    return int(found[0]) * 1024 if found else run_directory.peak_memory_bytes()


def reset_peak() -> None:
    """Lets VmHWM begin anew at the memory in use now; elsewhere than on Linux the peak stays the whole run's."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return
