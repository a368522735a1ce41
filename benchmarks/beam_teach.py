"""Time and memory of the teacher's lists for large data: python -m benchmarks.beam_teach.

A city of the built-in world with each of --sizes check-ins (60 a user on average, 500 places, repeats kept) is saved as
a sharded dataset directory, 500,000 check-ins a shard, and a Caser with d = --dim and its initial weights as a run
directory: how good its lists are has no part in what they cost. Then K = 10 lists of all training windows of the test
split are made in child processes:

    local            python -m rd_tf.teach, for the smallest number only
    beam             python -m pipelines.beam.teach: Beam's DirectRunner, in one process
    beam 2 workers   the same in two worker processes, for the smallest number only

`equal` in the JSON: whether all files are those of `local`, byte for byte. `memory` lines are the largest resident
memory of one process, in MB. `cpu_s` is the processor time of all processes, which other work on the machine changes
less than the time that passes. The floor is that of benchmarks.top_k: the matrix products at the machine's rate.

On 2 busy cores, 10,000,000 check-ins in 20 shards, pipelines.beam.teach: 293 s, 53 CPU seconds, a peak of 1,085 MB;
floor 24.6 s. The gap: most of the time other work had the cores. Of 6.5 us of CPU a window, 3.0 are the product with
the item table, 1.5 the rest of scoring, 1.3 choosing the best, 0.4 reading, cutting and writing; the start takes 6 s.

All measured figures: docs/scale_teach.md.
"""

import filecmp
import json
import multiprocessing
import sys
import tempfile
from pathlib import Path

from benchmarks import flags
from benchmarks.floors import CaserSizes, ranking_work
from benchmarks.harness import Measurement, Report, check_output, measure_machine, significant
from benchmarks.process_tree import run_watched
from rd_tf.runtime import import_quietly
from rd_tf.storage import InputError

_ITEMS, _VISITS, _CHECK_INS_A_SHARD = 500, 60.0, 500_000
_K, _BLOCK_SIZE = 10, 1024
_MB = 1e6


def beam_teach(*, sizes: list[str], dim: int, seed: int, output: str) -> None:
    """Measures the teacher's lists for sharded datasets of several sizes, on this machine.

    Prints JSON lines and a table.
    """
    parsed = parse_sizes(sizes)
    check_output(output)
    import_quietly()
    report = Report("beam_teach", measure_machine(), output)
    for size in parsed:
        with tempfile.TemporaryDirectory() as directory:
            _measure(report, size, size == parsed[0], dim, seed, Path(directory))
    report.finish()


def parse_sizes(sizes: list[str]) -> list[int]:
    """The numbers of check-ins, smallest first.

    Raises:
        InputError: one is no whole number or makes a city of less than 10 users, or there are none.
    """
    if not sizes:
        raise InputError("--sizes is empty; name numbers of check-ins, for example --sizes=1000000,10000000")
    for size in sizes:
        if not size.isdecimal() or int(size) < 10 * _VISITS:
            raise InputError(f"--sizes={size} is no whole number from {10 * _VISITS:.0f}; name other numbers")
    return sorted(map(int, sizes))


def _measure(report: Report, size: int, compares: bool, dim: int, seed: int, directory: Path) -> None:
    # In a process of its own: this one stays small.
    maker = multiprocessing.get_context("spawn").Process(target=make_world, args=(size, dim, seed, directory))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise InputError(f"--sizes={size}: the city could not be made; name a smaller number")
    dataset = json.loads((directory / "dataset" / "manifest.json").read_text())
    ways = {"beam": ["pipelines.beam.teach"]}
    if compares:
        workers = "--beam_options=direct_running_mode=multi_processing,direct_num_workers=2"
        ways = {"local": ["rd_tf.teach"], **ways, "beam 2 workers": ["pipelines.beam.teach", workers]}
    for name, words in ways.items():
        cache = directory / name.replace(" ", "_")
        places = [f"--teacher={directory}/teacher", f"--dataset={directory}/dataset", f"--cache={cache}"]
        command = [sys.executable, "-m", *words, *places, f"--k={_K}", f"--block_size={_BLOCK_SIZE}"]
        run = run_watched(command)
        manifest = json.loads((cache / "manifest.json").read_text())
        extra = {
            "check_ins": dataset["interactions"],
            "users": dataset["users"],
            "items": dataset["items"],
            "shards": len(dataset["shards"]),
            "windows": manifest["rows"],
            "cpu_s": significant(run.cpu_seconds),
            "cache_bytes": sum(file.stat().st_size for file in cache.iterdir()),
        }
        if compares and name != "local":
            extra["equal"] = _are_equal(directory / "local", cache)
        work = ranking_work(CaserSizes(dim), manifest["rows"], dataset["items"] + 1, _BLOCK_SIZE)
        report.add(Measurement(f"{size:,} {name}", "s", [run.seconds], work, extra=extra))
        report.add(Measurement(f"{size:,} {name} memory", "MB", [max(run.peak_bytes) / _MB]))


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
    from rd_tf import run_directory
    from rd_tf.data.dataset import save_dataset
    from rd_tf.data.synthetic import synthetic_interactions
    from rd_tf.models.registry import save_model
    from rd_tf.storage import write_json

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
    write_json(directory / "teacher" / run_directory.MANIFEST, manifest)


def _are_equal(one: Path, other: Path) -> bool:
    names = sorted(file.name for file in one.iterdir())
    if names != sorted(file.name for file in other.iterdir()):
        return False
    _, unequal, unread = filecmp.cmpfiles(one, other, names, shallow=False)
    return not unequal and not unread


if __name__ == "__main__":
    flags.run(beam_teach, flags.dim_flag(32), flags.sizes_flag(["1000000", "10000000"], "Check-ins of each city."))
