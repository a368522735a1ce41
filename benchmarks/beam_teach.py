"""Time and memory of the teacher's lists for large data: python -m benchmarks.beam_teach.

A city of the built-in world with each number of --check_ins (60 a user on average, 500 places, repeats kept) is saved
as a sharded dataset directory, 500,000 check-ins a shard, and a Caser with d = --dim and its initial weights as a run
directory: how good its lists are has no part in what they cost. Then K = 10 lists of all training windows of the test
split are made in child processes:

    local            python -m rd_tf.teach, for the smallest number only
    beam             python -m pipelines.beam_teach: Beam's DirectRunner, in one process
    beam 2 workers   the same in two worker processes, for the smallest number only

`equal` in the JSON: whether all files are those of `local`, byte for byte. `memory` lines are the largest resident
memory of one process, in MB, looked at ten times a second. The floor is that of benchmarks.top_k: the matrix products
at the machine's rate, without selecting the best, reading, cutting and writing.

Measured figures: docs/scale_teach.md.
"""

import dataclasses
import filecmp
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import flags
from benchmarks.floors import CaserSizes, ranking_work
from benchmarks.harness import Measurement, Report, check_output, measure_machine
from rd_tf.errors import InputError
from rd_tf.quiet_tensorflow import import_quietly

_ITEMS, _VISITS, _CHECK_INS_A_SHARD = 500, 60.0, 500_000
_K, _BLOCK_SIZE = 10, 1024
_SECONDS_BETWEEN_LOOKS = 0.1
_KB, _MB = 1024, 1e6


def beam_teach(*, check_ins: list[str], dim: int, seed: int, output: str) -> None:
    """Measures the teacher's lists for sharded datasets of several sizes, on this machine.

    Prints JSON lines and a table.
    """
    sizes = parse_check_ins(check_ins)
    check_output(output)
    import_quietly()
    report = Report("beam_teach", measure_machine(), output)
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            _measure(report, size, size == sizes[0], dim, seed, Path(directory))
    report.finish()


def parse_check_ins(check_ins: list[str]) -> list[int]:
    """The numbers of check-ins, smallest first.

    Raises:
        InputError: one is no whole number or makes a city of less than 10 users, or there are none.
    """
    if not check_ins:
        raise InputError("--check_ins is empty; name numbers of check-ins, for example --check_ins=1000000,10000000")
    for number in check_ins:
        if not number.isdecimal() or int(number) < 10 * _VISITS:
            raise InputError(f"--check_ins={number} is no whole number from {10 * _VISITS:.0f}; name other numbers")
    return sorted(map(int, check_ins))


def _measure(report: Report, size: int, compares: bool, dim: int, seed: int, directory: Path) -> None:
    # In a process of its own: this one stays small.
    maker = multiprocessing.get_context("spawn").Process(target=make_world, args=(size, dim, seed, directory))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise InputError(f"--check_ins={size}: the city could not be made; name a smaller number")
    dataset = json.loads((directory / "dataset" / "manifest.json").read_text())
    ways = {"beam": ["pipelines.beam_teach"]}
    if compares:
        workers = "--beam_options=direct_running_mode=multi_processing,direct_num_workers=2"
        ways = {"local": ["rd_tf.teach"], **ways, "beam 2 workers": ["pipelines.beam_teach", workers]}
    for name, words in ways.items():
        cache = directory / name.replace(" ", "_")
        run = _run([*words, f"--teacher={directory}/teacher", f"--dataset={directory}/dataset", f"--cache={cache}"])
        manifest = json.loads((cache / "manifest.json").read_text())
        extra = {
            "check_ins": dataset["interactions"],
            "users": dataset["users"],
            "items": dataset["items"],
            "shards": len(dataset["shards"]),
            "windows": manifest["rows"],
            "cache_bytes": sum(file.stat().st_size for file in cache.iterdir()),
        }
        if compares and name != "local":
            extra["equal"] = _are_equal(directory / "local", cache)
        work = ranking_work(CaserSizes(dim), manifest["rows"], dataset["items"] + 1, _BLOCK_SIZE)
        report.add(Measurement(f"{size:,} {name}", "s", [run.seconds], work, extra=extra))
        report.add(Measurement(f"{size:,} {name} memory", "MB", [run.peak_bytes / _MB]))


def make_world(size: int, dim: int, seed: int, directory: Path) -> None:
    """Writes the sharded dataset `dataset` and the run directory `teacher`, as far as teaching reads one.

    Args:
        size: check-ins, about.
        dim: d of the teacher.
        seed: of both.
        directory: where they appear.
    """
    import_quietly()
    from benchmarks.subjects import make_caser
    from rd_tf import run_directory, storage
    from rd_tf.data.dataset_directory import save_dataset
    from rd_tf.data.synthetic import synthetic_interactions
    from rd_tf.models.storage import save_model

    world = synthetic_interactions(max(1, round(size / _VISITS)), _ITEMS, _VISITS, seed)
    saved = save_dataset(world, directory / "dataset", {}, shards=max(2, round(size / _CHECK_INS_A_SHARD)))
    (directory / "teacher").mkdir()
    described = save_model(make_caser(world, dim, seed), directory / "teacher")
    manifest = {
        "split": "test",
        "dataset": {"fingerprint": saved["fingerprint"]},
        "flags": {"target_length": 1},
        "model": described,
    }
    storage.write_json(directory / "teacher" / run_directory.MANIFEST, manifest)


@dataclasses.dataclass
class _Run:
    seconds: float
    peak_bytes: int


def _run(words: list[str]) -> _Run:
    command = [sys.executable, "-m", *words, f"--k={_K}", f"--block_size={_BLOCK_SIZE}"]
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=sys.stderr)
    peak, ended = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            peak = max([peak, *map(_peak_bytes, _family(child.pid))])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        raise
    finally:
        ended.set()
        looking.join()
    if code:
        raise InputError(f"{' '.join(command)} ended with {code}; its messages are above")
    return _Run(time.perf_counter() - begin, peak)


def _family(process: int) -> list[int]:
    """A process and all that it started."""
    found = [process]
    for parent in found:
        for file in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, file.read_text().split())
            except OSError:
                # It has just ended.
                continue
    return found


def _peak_bytes(process: int) -> int:
    # Not what getrusage tells of children: that begins with the memory of whoever started them.
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * _KB for line in lines if line.startswith("VmHWM:"))


def _are_equal(one: Path, other: Path) -> bool:
    names = sorted(file.name for file in one.iterdir())
    if names != sorted(file.name for file in other.iterdir()):
        return False
    _, unequal, unread = filecmp.cmpfiles(one, other, names, shallow=False)
    return not unequal and not unread


if __name__ == "__main__":
    flags.run(beam_teach, flags.dim_flag(32))
