"""How fast and in how much memory check-ins are prepared by pipelines: python -m benchmarks.beam_prepare.

For each of --sizes, built-in worlds of about 100,000 check-ins with users of their own, the places of ten worlds being
the same, are written to a temporary directory as CSV files of a million rows; no more than a file is ever in memory.
Two commands run over them in processes of their own, with --min_user_items=10 --min_item_users=10 --shards=8:

    local   rd_tf.prepare, which holds all rows at once
    beam    pipelines.beam.prepare with the default runner and --beam_options

Each line has the check-ins, the bytes of the files, the seconds, the CPU seconds and the peak memory of every process
of the command; the line of `beam` also says whether both datasets are the same, byte for byte. The floor is `local`:
what a process takes that may hold everything and moves no row to another.

Measured figures: docs/scale_beam.md.
"""

import filecmp
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from benchmarks import flags
from benchmarks.harness import Measurement, Report, check_output, measure_machine, significant
from benchmarks.process_tree import TreeRun, run_watched
from rd_tf.command_line import flag_lines
from rd_tf.data.synthetic import synthetic_interactions
from rd_tf.storage import InputError

_WORLD_USERS, _WORLD_ITEMS, _VISITS = 1667, 20_000, 60.0
_WORLDS_OF_A_COUNTRY = 10
_FILE_ROWS = 1_000_000
_MB = 1e6
_FLAGS = {"min_user_items": 10, "min_item_users": 10, "shards": 8}


def beam_prepare(
    *, sizes: list[str], beam_options: list[str], bucket_rows: int, seed: int, work_dir: str, output: str
) -> None:
    """Prepares raw check-ins of several sizes with rd_tf.prepare and with pipelines.beam.prepare.

    Prints JSON lines and a table.
    """
    if not sizes or not all(size.isdecimal() and int(size) >= 1000 for size in sizes):
        raise InputError(f"--sizes={','.join(sizes)}: sizes are whole numbers from 1000, such as 1000000,10000000")
    check_output(output)
    report = Report("beam_prepare", measure_machine(), output)
    for size in map(int, sizes):
        with tempfile.TemporaryDirectory(dir=work_dir or None) as directory:
            _measure(report, Path(directory), size, seed, {"beam_options": beam_options, "bucket_rows": bucket_rows})
    report.finish()


def write_check_ins(directory: Path, rows: int, seed: int) -> list[Path]:
    """Writes CSV files of `user_id,item_id,timestamp`, a million rows each but for the last.

    Args:
        directory: gets the files.
        rows: of all files together.
        seed: of the first world; each further world has the next one.
    """
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


def _measure(report: Report, directory: Path, rows: int, seed: int, beam_flags: dict[str, Any]) -> None:
    paths = write_check_ins(directory, rows, seed)
    size = sum(path.stat().st_size for path in paths)
    common = {"rows": rows, "input_mb": significant(size / _MB)}
    local = _run("rd_tf.prepare", {"input": paths, "dataset": directory / "local", **_FLAGS})
    report.add(Measurement(f"local, {rows:,} rows", "s", [local.seconds], extra={**common, **_memory(local)}))
    flags_ = {"input": paths, "dataset": directory / "beam", **_FLAGS, **beam_flags}
    beam = _run("pipelines.beam.prepare", flags_)
    same = _same(directory / "local", directory / "beam")
    extra = {**common, **_memory(beam), "same_bytes": same, "times_local": significant(beam.seconds / local.seconds)}
    report.add(Measurement(f"beam, {rows:,} rows", "s", [beam.seconds], extra={**extra, **beam_flags}))


def _run(module: str, values: dict[str, Any]) -> TreeRun:
    return run_watched([sys.executable, "-m", module, *flag_lines(values).splitlines()])


def _memory(run: TreeRun) -> dict[str, Any]:
    peaks = [significant(peak / _MB) for peak in run.peak_bytes]
    return {"cpu_s": significant(run.cpu_seconds), "rss_mb": max(peaks), "processes_mb": peaks}


def _same(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])


if __name__ == "__main__":
    flags.run(beam_prepare, flags.sizes_flag(["1000000", "10000000"], "Check-ins to prepare, each number once."))
