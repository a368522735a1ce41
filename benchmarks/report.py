"""What every benchmark shares: the machine's peaks, repeats and pairs, JSON lines, tables and flags.

python -m benchmarks.report writes the tables of the pages in docs/ from results/.
"""

import concurrent.futures
import dataclasses
import datetime
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import pandas as pd
from absl import flags

from pipelines.records import ROLES
from pipelines.report import replace_between
from rd_tf import command_line, run_directory
from rd_tf.flag_definitions import FLAGS, path_flag
from rd_tf.storage import InputError, read_json, write_text

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
class Work:
    """Floating-point operations (a multiply-add counts as two) and bytes moved between memory and the cores."""

    flops: float
    bytes: float

    def __mul__(self, times: float) -> "Work":
        return Work(self.flops * times, self.bytes * times)

    def seconds(self, peak_gflops: float, bandwidth_gb: float) -> float:
        """Time at a machine's peaks: the arithmetic's or the traffic's, whichever takes longer."""
        return max(self.flops / peak_gflops, self.bytes / bandwidth_gb) / 1e9


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where a benchmark ran, and its peaks: a large float32 `tf.matmul`, and a large copy, read and written, by all."""

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
    """Prints a JSON line as soon as a case is measured, the machine's first, and the table at the end.

    `output` is a file that gets the JSON lines too; empty for none.
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


def check_optimizer(name: str) -> None:
    """Refuses an optimizer of which no benchmark states a floor.

    Raises:
        InputError: that.
    """
    if name not in ("adam", "lazy_adam"):
        raise InputError(f"--optimizer={name} has no stated floor; it is one of adam, lazy_adam")


def check_output(output: str) -> None:
    """Refuses (InputError) a file that could not be written, before anything is measured."""
    if output and Path(output).is_dir():
        raise InputError(f"--output={output} is a directory; name a file")


def check_cases(cases: Sequence[str], known: Sequence[str]) -> list[str]:
    """The cases to measure, in the order of `known`; all where none are named. An unknown one is an InputError."""
    for case in cases:
        if case not in known:
            raise InputError(f"--cases={case} is no case of this benchmark; choose from {','.join(known)}")
    return [case for case in known if not cases or case in cases]


def whole_numbers(name: str, texts: Sequence[str], low: int = 1) -> list[int]:
    """What a flag with several whole numbers holds; an InputError where there are none or one is less than `low`."""
    if not texts:
        raise InputError(f"--{name} is empty; name whole numbers, for example --{name}={low},{8 * low}")
    for text in texts:
        if not text.isdecimal() or int(text) < low:
            raise InputError(f"--{name}={text} is no whole number from {low}")
    return [int(text) for text in texts]


def seconds_of(action: Callable[[], Any]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def take_pairs(ours: Callable[[], S], theirs: Callable[[], T] | None, repeats: int) -> tuple[list[S], list[T]]:
    """Repeats of ours and theirs in turn after a warm-up, so that both of a pair meet the machine in the same state."""
    first: list[S] = []
    second: list[T] = []
    for _ in range(repeats + 1):
        first.append(ours())
        if theirs is not None:
            second.append(theirs())
    return first[1:], second[1:]


def table(records: Sequence[dict[str, Any]]) -> str:
    """The records as aligned text."""
    headings, *rows = cells(records)
    return pd.DataFrame(rows, columns=headings).to_string(index=False)


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


Define = Callable[[flags.FlagValues], Any]


def flag(name: str, default: str | float | list[str], help_: str, low: float | None = None) -> tuple[str, Define]:
    """A flag of the default's type, and the least value of a number."""

    def define(values: flags.FlagValues) -> None:
        if isinstance(default, list):
            flags.DEFINE_list(name, default, help_, flag_values=values)
        elif isinstance(default, str):
            flags.DEFINE_string(name, default, help_, flag_values=values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, help_, None if low is None else int(low), flag_values=values)
        else:
            flags.DEFINE_float(name, default, help_, low, flag_values=values)

    return name, define


BENCHMARK_FLAGS: dict[str, Define] = dict(
    [
        path_flag(
            "dataset", "", "Dataset directory, as rd_tf.prepare writes it. Empty: a random world of Gowalla's size."
        ),
        flag("seed", 0, "Seed of the random world, weights and draws.", 0),
        flag("repeats", 5, "Timed repeats of each case, after a warm-up; with --reference each one is a pair.", 1),
        flag("steps", 100, "Training steps a repeat.", 1),
        path_flag("reference", "", "Checkout of the authors' code, github.com/graytowne/rank_distill. Empty: none."),
        path_flag("reference_python", "", "A Python with torch, numpy and scipy to run it with. Empty: this one."),
        flag("reference_steps", 30, "Training steps a repeat of the authors' code.", 1),
        flag("reference_windows", 160, "Windows a repeat of the authors' top-K.", 1),
        flag("reference_users", 100, "Users a repeat of the authors' evaluation.", 1),
        path_flag("output", "", "File that gets the JSON lines too. Empty: none."),
        flag("cases", [], "Cases to measure. Empty: all."),
        flag("windows", 20_000, "Windows a repeat.", 1),
        flag("epoch_seconds", 0.0, "Seconds of a training epoch; an evaluation is shown as a share of it.", 0.0),
        flag("sizes", ["14000", "100000", "1000000"], "Items of each world; it has as many users."),
        flag("windows_per_user", 20, "Mean training windows of a user.", 1),
        flag("publishes", 1000, "Publishers that are killed, in each of their cases.", 1),
        flag("kills", 60, "Commands that are killed, over all their cases together.", 1),
        flag("items", 14_009, "Items of the served catalogue.", 200),
        flag("users", 13_149, "Users that the exports know.", 1),
        flag("run_dirs", [], "Finished runs on --dataset to serve in place of random weights."),
        flag("clients", ["1", "8", "64"], "Clients that ask at a time."),
        flag("rows", ["1", "32"], "Rows of a request."),
        flag("seconds", 5.0, "Seconds of a measurement, after a warm-up of a fifth of it.", 0.1),
        flag("requests", 200_000, "Requests, a hundredth of them malformed.", 100),
        flag("soak_clients", 6, "Clients that ask at a time.", 1),
        flag("switch_seconds", 5.0, "Seconds between two published versions.", 0.1),
        flag("most_growth", 5.0, "Percent by which the server's memory may grow.", 0.0),
        flag("check_ins_per_user", 30, "Check-ins of every user.", 1),
        flag("workers", 64, "Machines that work together.", 1),
        flag("cores", 32, "Cores of a machine.", 1),
        flag("network_gb", 3.0, "Network of a machine in each direction, in 10^9 bytes a second.", 1e-6),
        flag("disk_gb", 1.0, "What a machine reads or writes on the shared disk, in 10^9 bytes a second.", 1e-6),
        flag("cache_windows", 0, "Windows whose top 100 are streamed into a teacher cache on disk. 0: no cache.", 0),
    ]
)


def run_benchmark(command: Callable[..., None], *own: tuple[str, Define]) -> NoReturn:
    """Runs `python -m benchmarks...` as `rd_tf.command_line.run` does; `own` are flags that it defines otherwise."""
    # This process is a benchmark and nothing else, so a benchmark's flag may stand for one of the commands'.
    FLAGS.update({**BENCHMARK_FLAGS, **dict(own)})
    command_line.run(command)


# Folders below results/gowalla/: dense Adam, row-sparse Adam, otherwise the same flags.
PAIRS = (("validation-adam", "validation-lazy_adam"), ("caser-adam", "caser"))


def optimizers_table(results: Path) -> str:
    """Markdown of `results/gowalla`: every run that is there with both optimizers, and the mean by role."""
    lines = ["", "| | split | seed | MAP, adam | MAP, lazy_adam | difference |", "|---|---|---|---|---|---|"]
    for role, title in ROLES.items():
        for dense, lazy in PAIRS:
            found = _found(results / dense, results / lazy, role)
            lines += [_row(title, split, str(seed), *values) for seed, (split, *values) in sorted(found.items())]
            if len(found) > 1:
                split = next(iter(found.values()))[0]
                means = np.mean([values for _, *values in found.values()], axis=0)
                lines.append(_row(f"**{title}**", split, "mean", *means))
    return "\n".join([*lines, ""])


def _found(dense: Path, lazy: Path, role: str) -> dict[int, tuple[str, float, float]]:
    """Seed -> split and both MAPs."""
    found = {}
    for path in dense.glob(f"seed-*/{role}/{run_directory.METRICS}"):
        other = lazy / path.relative_to(dense)
        if other.is_file():
            first, second = read_json(path), read_json(other)
            seed = int(path.parts[-3].removeprefix("seed-"))
            found[seed] = (first["split"], first["metrics"]["map"], second["metrics"]["map"])
    return found


def _row(title: str, split: str, seed: str, dense: float, lazy: float) -> str:
    return f"| {title} | {split} | {seed} | {dense:.4f} | {lazy:.4f} | {100 * (lazy / dense - 1):+.1f} % |"


_ROOT = Path(__file__).parents[1]
RESULTS = _ROOT / "results"
# Page -> the markers in it, between which stand the tables of the files of the same names below results/benchmarks/.
PAGES = {
    "docs/performance.md": ("train_step", "train_step_adam", "time_to_quality", "top_k", "evaluate", "scale", "cache"),
    "docs/serving_load.md": ("serving", "serving_million", "soak"),
    "docs/scale_teach.md": ("beam_teach",),
}


def report() -> None:
    """Replaces the tables between the pages' markers by what results/ holds."""
    for page in PAGES:
        text = (_ROOT / page).read_text(encoding="utf-8")
        write_text(_ROOT / page, fill(page, text, RESULTS))
        print(f"wrote {page}")


def fill(page: str, text: str, results: Path) -> str:
    """Puts every file of results that is there into the text of a page; a missing marker is an InputError."""
    for name in PAGES[page]:
        path = results / "benchmarks" / f"{name}.jsonl"
        if path.is_file():
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            text = replace_between(text, name, _markdown(records), page)
    if page == "docs/performance.md":
        text = replace_between(text, "optimizers", optimizers_table(results / "gowalla"), page)
    return text


def _markdown(records: list[dict[str, Any]]) -> str:
    machine = next(record for record in records if record["benchmark"] == "machine")
    headings, *rows = cells([record for record in records if "case" in record])
    lines = ["", f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [
        "",
        f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, {machine['peak_gflops']:.0f} GFLOP/s, "
        f"{machine['bandwidth_gb']:.0f} GB/s, TensorFlow {machine['tensorflow']}, "
        f"revision {machine['git_revision'] or 'unknown'}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(report)
