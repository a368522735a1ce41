"""Time and memory of preparing data and of the teacher's lists, with and without Beam: python -m benchmarks.beam.

Every measured command runs in processes of its own. Case `prepare`, for each of --sizes check-ins: built-in worlds of
about 100,000 check-ins with users of their own, the places of ten worlds being the same, are written as CSV files of a
million rows; no more than a file is ever in memory. Over them run, with --min_user_items=10 --min_item_users=10
--shards=8,

    prepare parser   pyarrow's CSV parser alone, in this process: the floor of reading
    prepare local    rd_tf.prepare, which holds all rows at once
    prepare beam     pipelines.beam_prepare with the default runner and --beam_options

Case `teach`: a city of the built-in world (60 check-ins a user on average, 500 places, repeats kept) is saved as a
sharded dataset directory, 500,000 check-ins a shard, and a Caser with d = --dim and its initial weights as a run
directory: how good its lists are has no part in what they cost. Then K = 10 lists of all training windows of the test
split are made by

    teach local            rd_tf.teach, for the smallest number only
    teach beam             pipelines.beam_teach: Beam's DirectRunner, in one process
    teach beam 2 workers   the same in two worker processes, for the smallest number only

with the floor of benchmarks.speed: the matrix products at the machine's rate. `equal` in the JSON: whether all files
are those of `local`, byte for byte. MB is the largest resident memory of one process, `processes_mb` those of all.
CPU seconds are those of all processes, which other work on the machine changes less than the time that passes.

Measured figures: docs/scale_beam.md, docs/scale_teach.md.
"""

import dataclasses
import filecmp
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from benchmarks.report import (
    Measurement,
    Report,
    check_cases,
    check_output,
    flag,
    measure_machine,
    run_benchmark,
    seconds_of,
    significant,
    whole_numbers,
)
from rd_tf import command_line
from rd_tf.data.synthetic import synthetic_interactions
from rd_tf.runtime import import_quietly
from rd_tf.storage import InputError

_VISITS = 60.0
_WORLD_USERS, _WORLD_ITEMS = 1667, 20_000
_WORLDS_OF_A_COUNTRY = 10
_FILE_ROWS = 1_000_000
_CITY_ITEMS, _CHECK_INS_A_SHARD = 500, 500_000
_K, _BLOCK_SIZE = 10, 1024
_PREPARE_FLAGS = {"min_user_items": 10, "min_item_users": 10, "shards": 8}
_TWO_WORKERS = ["direct_running_mode=multi_processing", "direct_num_workers=2"]
_POLL_SECONDS = 0.1
_SMALL_PROCESS_BYTES = 1 << 26
_MB = 1e6


def beam(
    *,
    sizes: list[str],
    cases: list[str],
    beam_options: list[str],
    bucket_rows: int,
    dim: int,
    seed: int,
    work_dir: str,
    output: str,
) -> None:
    """Prepares check-ins and makes the teacher's lists, of several sizes, with and without Beam.

    Cases: prepare, teach. Prints JSON lines and a table.
    """
    chosen, numbers = check_cases(cases, ["prepare", "teach"]), sorted(whole_numbers("sizes", sizes, 1000))
    check_output(output)
    import_quietly()
    report = Report("beam", measure_machine(), output)
    for size in numbers:
        with tempfile.TemporaryDirectory(dir=work_dir or None) as directory:
            if "prepare" in chosen:
                options = {"beam_options": beam_options, "bucket_rows": bucket_rows}
                _measure_preparing(report, Path(directory), size, seed, options)
            if "teach" in chosen:
                _measure_teaching(report, Path(directory), size, size == numbers[0], dim, seed)
    report.finish()


def _measure_preparing(report: Report, directory: Path, rows: int, seed: int, beam_flags: dict[str, Any]) -> None:
    paths = write_check_ins(directory, rows, seed)
    common = {"rows": rows, "input_mb": significant(sum(path.stat().st_size for path in paths) / _MB)}
    text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(["user_id", "item_id", "timestamp"], pa.binary()))
    parsing = seconds_of(lambda: [pyarrow.csv.read_csv(path, convert_options=text) for path in paths])
    report.add(Measurement(f"prepare parser, {rows:,} rows", "s", [parsing], extra=common))
    local = _run("rd_tf.prepare", {"input": paths, "dataset": directory / "local", **_PREPARE_FLAGS})
    report.add(Measurement(f"prepare local, {rows:,} rows", "s", [local.seconds], extra={**common, **_used(local)}))
    flags = {"input": paths, "dataset": directory / "beam", **_PREPARE_FLAGS, **beam_flags}
    by_beam = _run("pipelines.beam.prepare", flags)
    extra = {**common, **_used(by_beam), "equal": _are_equal(directory / "local", directory / "beam"), **beam_flags}
    report.add(Measurement(f"prepare beam, {rows:,} rows", "s", [by_beam.seconds], extra=extra))


def write_check_ins(directory: Path, rows: int, seed: int) -> list[Path]:
    """Writes CSV files of `user_id,item_id,timestamp`, a million rows each but for the last; `rows` in all."""
    paths = [directory / f"check_ins-{number:05}.csv" for number in range(-(-rows // _FILE_ROWS))]
    waiting, world = pa.table({"user_id": [], "item_id": [], "timestamp": []}), 0
    for path in paths:
        wanted = min(_FILE_ROWS, rows)
        tables = [waiting] if len(waiting) else []
        while sum(map(len, tables)) < wanted:
            tables.append(_world(world, seed + world))
            world += 1
        table = pa.concat_tables(tables)
        pyarrow.csv.write_csv(table.slice(0, wanted), path, pyarrow.csv.WriteOptions(quoting_style="none"))
        waiting, rows = table.slice(wanted).combine_chunks(), rows - wanted
    return paths


def _world(number: int, seed: int) -> pa.Table:
    world = synthetic_interactions(_WORLD_USERS, _WORLD_ITEMS, _VISITS, seed)
    # In the order of time, as a log is, so that the rows of a user lie apart.
    order = np.argsort(world.timestamps, kind="stable")
    users, items = pa.array(world.user_ids), pa.array(world.item_ids)
    users = pc.binary_join_element_wise(users, f"world-{number}", "@")
    items = pc.binary_join_element_wise(items, f"country-{number // _WORLDS_OF_A_COUNTRY}", "@")
    columns = {
        "user_id": users.take(pa.array(world.users[order])),
        "item_id": items.take(pa.array(world.items[order] - 1)),
        "timestamp": pa.array(world.timestamps[order]),
    }
    return pa.table(columns)


def _measure_teaching(report: Report, directory: Path, size: int, is_compared: bool, dim: int, seed: int) -> None:
    from benchmarks.subjects import CaserSizes, ranking_work

    directory = directory / "city"
    directory.mkdir()
    # In a process of its own: this one stays small.
    maker = multiprocessing.get_context("spawn").Process(target=make_world, args=(size, dim, seed, directory))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise InputError(f"--sizes={size}: the city could not be made; name a smaller number")
    dataset = json.loads((directory / "dataset" / "manifest.json").read_text())
    ways: dict[str, tuple[str, dict[str, Any]]] = {"beam": ("pipelines.beam.teach", {})}
    if is_compared:
        two = ("pipelines.beam.teach", {"beam_options": _TWO_WORKERS})
        ways = {"local": ("rd_tf.teach", {}), **ways, "beam 2 workers": two}
    for name, (module, options) in ways.items():
        cache = directory / name.replace(" ", "_")
        places = {"teacher": directory / "teacher", "dataset": directory / "dataset", "cache": cache}
        run = _run(module, {**places, "k": _K, "block_size": _BLOCK_SIZE, **options})
        rows = json.loads((cache / "manifest.json").read_text())["rows"]
        extra = {
            "check_ins": dataset["interactions"],
            "users": dataset["users"],
            "items": dataset["items"],
            "shards": len(dataset["shards"]),
            "windows": rows,
            "cache_bytes": sum(file.stat().st_size for file in cache.iterdir()),
            **_used(run),
        }
        if is_compared and name != "local":
            extra["equal"] = _are_equal(directory / "local", cache)
        work = ranking_work(CaserSizes(dim), rows, dataset["items"] + 1, _BLOCK_SIZE)
        report.add(Measurement(f"teach {name}, {size:,} check-ins", "s", [run.seconds], work, extra=extra))


def make_world(size: int, dim: int, seed: int, directory: Path) -> None:
    """Writes the sharded dataset `dataset` and the run directory `teacher`, as far as teaching reads one."""
    import_quietly()
    from benchmarks.subjects import make_caser
    from rd_tf import run_directory
    from rd_tf.data.dataset import save_dataset
    from rd_tf.models.registry import save_model
    from rd_tf.storage import write_json

    world = synthetic_interactions(max(1, round(size / _VISITS)), _CITY_ITEMS, _VISITS, seed)
    saved = save_dataset(world, directory / "dataset", {}, shards=max(2, round(size / _CHECK_INS_A_SHARD)))
    (directory / "teacher").mkdir()
    described = save_model(make_caser(world, dim, seed), directory / "teacher")
    manifest = {
        "split": "test",
        "dataset": {"fingerprint": saved["fingerprint"]},
        "flags": {"target_length": 1},
        "model": described,
    }
    write_json(directory / "teacher" / run_directory.MANIFEST, manifest)


@dataclasses.dataclass(frozen=True)
class TreeRun:
    """Seconds and CPU seconds of a command, and the peak memory of each process of 64 MiB or more, parents first."""

    seconds: float
    cpu_seconds: float
    peak_bytes: list[int]


def _run(module: str, values: dict[str, Any]) -> TreeRun:
    return run_watched([sys.executable, "-m", module, *command_line.flag_lines(values).splitlines()])


def _used(run: TreeRun) -> dict[str, Any]:
    peaks = [significant(peak / _MB) for peak in run.peak_bytes]
    return {"cpu_s": significant(run.cpu_seconds), "rss_mb": max(peaks, default=0.0), "processes_mb": peaks}


def run_watched(command: Sequence[str]) -> TreeRun:
    """Runs a command to its end, its output on stderr; needs Linux' /proc.

    A process's peak is the kernel's own (VmHWM), read ten times a second: what its last 0.1 s add may be missed.

    Raises:
        subprocess.CalledProcessError: it fails.
    """

    before = os.times()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in _tree(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), _peak(pid))
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return TreeRun(seconds, cpu, [peak for peak in peaks.values() if peak >= _SMALL_PROCESS_BYTES])


def _tree(pid: int) -> list[int]:
    """A process and all its descendants, parents first."""
    found = [pid]
    for each in found:
        try:
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        except OSError:
            continue
    return found


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _are_equal(one: Path, other: Path) -> bool:
    names = sorted(file.name for file in one.iterdir())
    if names != sorted(file.name for file in other.iterdir()):
        return False
    _, unequal, unread = filecmp.cmpfiles(one, other, names, shallow=False)
    return not unequal and not unread


if __name__ == "__main__":
    sizes_flag = flag("sizes", ["1000000", "10000000"], "Check-ins, each number once.")
    run_benchmark(beam, sizes_flag, flag("dim", 32, "d of the teacher.", 1))
