"""Time and memory from 14,000 to 1,000,000 items and users: python -m benchmarks.scale.

A random world of each of --sizes (as many users as items, about --windows_per_user windows a user), each in a process
of its own. Measured as in benchmarks.train_step, benchmarks.top_k and benchmarks.evaluate, with d = --dim:

    step           target and negatives: 4 items a row
    distillation   4 + 10 items with random teacher lists for all windows, 100 rank samples for w^b
    finish_epoch   what the optimizer leaves for the end of an epoch (lazy_adam: every 1,000 steps too)
    top_k          K = 100, for 1,000 windows
    evaluate       for 1,000 users
    cache          K = 100 for --cache_windows windows into a teacher cache on disk

Top-K and evaluation go over as many windows or users as have 2^29 scores together, 4,096 at most. Each line has its
ratio to the smallest world. Floors are those of the three benchmarks; lines on memory have none.

`prepare` is the time of the split, the windows and the samplers. Memory lines are in MB: `start` is TensorFlow and
Python alone; `data` what windows and samplers add, `model` what weights add (slots of the optimizer are first in memory
when a step writes them); `training` is everything beyond `start` when the training stages are over, the teacher's lists
let go; `peak ...` is the largest resident memory in a stage, `start` included. The teacher's lists are a memory map, as
in training: what is read of them counts in `peak distillation`, and the kernel can take it back. `structures_mb` in the
JSON names the largest arrays. The peak of `cache` is what it takes beyond the memory before; the pages of the files
that it writes count, and the kernel can take them back; `private` does not count them.

Measured figures: docs/performance.md.
"""

import dataclasses
import gc
import multiprocessing
import multiprocessing.connection
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import (
    Measurement,
    Report,
    check_optimizer,
    check_output,
    flag,
    measure_machine,
    run_benchmark,
    seconds_of,
    significant,
    whole_numbers,
)
from rd_tf import run_directory
from rd_tf.runtime import import_quietly
from rd_tf.storage import InputError

_BATCH_SIZE = 512
_STEPS_PER_CALL = 50
_SCORES, _MOST_QUERIES = 2**29, 4096
_TOP_K = 100
_PER = 1000
_LIST_ROWS = 2**18
_MB = 1e6


def scale(
    *,
    sizes: list[str],
    dim: int,
    windows_per_user: int,
    optimizer: str,
    steps: int,
    repeats: int,
    block_size: int,
    cache_windows: int,
    seed: int,
    output: str,
) -> None:
    """Measures time and memory of training, top-K and evaluation in random worlds of several sizes.

    A world has as many users as items. Prints JSON lines and a table; each line has its ratio to the smallest world.
    """
    # A K of 100 and a history of its user's must fit.
    worlds = sorted(whole_numbers("sizes", sizes, 200))
    check_output(output)
    check_optimizer(optimizer)
    settings = _Settings(dim, windows_per_user, optimizer, steps, repeats, block_size, cache_windows, seed)
    import_quietly()
    report = Report("scale", measure_machine(), output)
    smallest: dict[str, float] = {}
    for size in worlds:
        for name, measurement in _in_a_process(size, settings):
            median = float(np.median(measurement.seconds))
            first = smallest.setdefault(name, median)
            if first > 0:
                measurement.extra["ratio_to_smallest"] = significant(median / first)
            report.add(measurement)
    report.finish()


@dataclasses.dataclass(frozen=True)
class _Settings:
    dim: int
    windows_per_user: int
    optimizer: str
    steps: int
    repeats: int
    block_size: int
    cache_windows: int
    seed: int


Named = tuple[str, Measurement]


def _in_a_process(size: int, settings: _Settings) -> Iterator[Named]:
    """What `measure_world` yields in a process of its own, as it comes."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send, args=(sender, size, settings), daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            yield receiver.recv()
    except EOFError:
        process.join()
    if process.exitcode:
        why = "for lack of memory as a rule" if process.exitcode < 0 else "for the reason above"
        raise InputError(
            f"--sizes={size}: its process ended early, {why}; name a smaller one or lower --dim or --windows_per_user"
        )


def _send(sender: multiprocessing.connection.Connection, size: int, settings: _Settings) -> None:
    for named in measure_world(size, settings):
        sender.send(named)


def measure_world(size: int, settings: _Settings) -> Iterator[Named]:
    """Everything about one world, in this process.

    Yields:
        Names, the same for every size, and measurements.
    """
    import_quietly()
    from benchmarks.subjects import make_built_optimizer, make_caser, make_training_data, random_world
    from rd_tf.runtime import share_cores

    # As rd_tf.train does.
    share_cores(0)

    def named(name: str, *values: Any, **further: Any) -> Named:
        return name, Measurement(f"{size:,} {name}", *values, **further)

    def memory(name: str, total: int, **structures: int) -> Named:
        extra = {"structures_mb": {key: significant(value / _MB) for key, value in structures.items()}}
        return named(f"memory {name}", "MB", [total / _MB], extra=extra if structures else {})

    start = _resident_bytes()
    yield memory("start", start)
    _reset_peak()
    begin = time.perf_counter()
    world = random_world(size, size, size * settings.windows_per_user, settings.seed)
    made = time.perf_counter()
    data = make_training_data(world)
    yield named("prepare", "s", [time.perf_counter() - made], extra={"world_seconds": significant(made - begin)})
    gc.collect()
    after_data = _resident_bytes()
    yield memory("data", after_data - start, **_data_structures(data))
    yield memory("peak data", _resident_bytes("VmHWM"))

    model = make_caser(data.interactions, settings.dim, settings.seed)
    optimizer = make_built_optimizer(settings.optimizer, model)
    slots = sum(4 * int(np.prod(variable.shape)) for variable in optimizer.variables)
    yield memory("model", _resident_bytes() - after_data, weights=4 * model.count_params(), slots=slots)
    for name in ("step", "distillation"):
        _reset_peak()
        for measured, values, floor in _steps(name, data, model, optimizer, settings):
            yield named(measured, "ms", values, floor)
        yield memory(f"peak {name}", _resident_bytes("VmHWM"))
        gc.collect()
    yield memory("training", _resident_bytes() - start)
    for name, measure in (("top_k", _top_k), ("evaluate", _evaluate)):
        _reset_peak()
        values, floor, extra = measure(data, model, settings)
        yield named(name, "s/1,000", values, floor, extra=extra)
        yield memory(f"peak {name}", _resident_bytes("VmHWM"))
    if settings.cache_windows:
        seconds, peak, private, written = _cache(data, model, settings)
        extra = {"bytes": written, "windows": min(settings.cache_windows, len(data.windows))}
        yield named("cache", "s", [seconds], extra=extra)
        yield named("cache on disk", "MB", [written / _MB])
        yield memory("peak cache", peak)
        yield memory("peak cache private", private)


def _data_structures(data: Any) -> dict[str, int]:
    world, windows = data.interactions, data.windows
    return {
        "interactions": world.users.nbytes + world.items.nbytes,
        "raw_ids": 8 * (world.num_users + world.num_items),
        "split": data.split.train.nbytes + data.split.held_out.nbytes,
        "windows_sequences": windows.sequences.nbytes,
        "windows_other": windows.users.nbytes + windows.positions.nbytes + windows.targets.nbytes,
        # 4 bytes a training row, and 8 a user.
        "sampler": 4 * int(data.split.train.sum()) + 8 * world.num_users,
        "seen": 4 * int(data.split.train.sum()) + 8 * world.num_users,
    }


def _steps(name: str, data: Any, model: Any, optimizer: Any, settings: _Settings) -> Iterator[tuple[str, list, Any]]:
    from benchmarks.subjects import K, make_batches, step_floor, time_steps

    is_distilled = name == "distillation"
    with tempfile.TemporaryDirectory() as directory:
        lists = None
        if is_distilled:
            sizes = (len(data.windows), K, data.interactions.num_items)
            lists = _random_lists_on_disk(Path(directory) / "items.npy", *sizes, settings.seed)
        batches = make_batches(data, _BATCH_SIZE, settings.steps, settings.seed, lists)
        times = time_steps(
            model, optimizer, batches, True if is_distilled else None, _STEPS_PER_CALL, settings.repeats + 1
        )
        found = list(times)[1:]
        floor, _ = step_floor(data, settings.dim, _BATCH_SIZE, settings.optimizer, settings.seed, lists, is_distilled)
    yield name, [each.step for each in found], floor
    if not is_distilled:
        yield "finish_epoch", [each.finish_epoch for each in found], None


def _random_lists_on_disk(file: Path, rows: int, k: int, num_items: int, seed: int) -> np.ndarray:
    """A memory map as `rd_tf.data.teacher_cache.TeacherCache.items` is one."""
    from benchmarks.subjects import random_lists

    lists = np.lib.format.open_memmap(file, "w+", np.int32, (rows, k))
    for begin in range(0, rows, _LIST_ROWS):
        block = lists[begin : begin + _LIST_ROWS]
        block[:] = random_lists(len(block), k, num_items, seed + begin)
    # Opened anew, so that the pages that were written do not count as this process's memory.
    del lists, block
    return np.load(file, mmap_mode="r")


def _queries(data: Any) -> int:
    return max(1, min(_MOST_QUERIES, _SCORES // data.interactions.num_item_rows))


def _top_k(data: Any, model: Any, settings: _Settings) -> tuple[list[float], Any, dict[str, int]]:
    from benchmarks.speed import our_lists
    from benchmarks.subjects import some_windows

    windows = some_windows(data.windows, _queries(data), settings.seed)
    run = our_lists(model, windows, data.seen, _TOP_K, settings.block_size)
    values = [run() for _ in range(settings.repeats + 1)][1:]
    return values, _ranking_floor(data, settings), {"windows": len(windows)}


def _evaluate(data: Any, model: Any, settings: _Settings) -> tuple[list[float], Any, dict[str, int]]:
    from benchmarks.subjects import SEQUENCE_LENGTH
    from rd_tf.data.windows import Split, SplitData
    from rd_tf.evaluation.evaluator import Evaluator

    world, split = data.interactions, data.split
    chosen = np.zeros(world.num_users, bool)
    chosen[np.random.default_rng(settings.seed).permutation(world.num_users)[: _queries(data)]] = True
    of_chosen = SplitData(world, Split(split.name, split.train, split.held_out & chosen[world.users]))
    evaluator = Evaluator(of_chosen, SEQUENCE_LENGTH, (3, 5, 10), settings.block_size)
    users = evaluator.held_out.counts["users"]
    values = [seconds_of(lambda: evaluator.evaluate(model)) / users * _PER for _ in range(settings.repeats + 1)][1:]
    return values, _ranking_floor(data, settings), {"users": users}


def _ranking_floor(data: Any, settings: _Settings) -> Any:
    from benchmarks.subjects import CaserSizes, ranking_work

    return ranking_work(CaserSizes(settings.dim), _PER, data.interactions.num_item_rows, settings.block_size)


def _cache(data: Any, model: Any, settings: _Settings) -> tuple[float, int, int, int]:
    """Seconds, peak and private memory above what was there before, bytes on disk."""
    from benchmarks.subjects import some_windows
    from rd_tf.data.teacher_lists import CacheKey, write_teacher_cache
    from rd_tf.teacher.scoring import TopK

    windows = some_windows(data.windows, settings.cache_windows, settings.seed)
    key = CacheKey.of("random world", "test", windows, "random weights", "target")
    top_k = TopK(model, windows, data.seen, _TOP_K, "target", settings.block_size)
    gc.collect()
    before, private_before = _resident_bytes(), _resident_bytes("RssAnon")
    private = [private_before]
    _reset_peak()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "cache"
        begin = time.perf_counter()
        with write_teacher_cache(place, key, len(windows), _TOP_K) as store:
            top_k.all_lists(store, lambda _: private.append(_resident_bytes("RssAnon")))
        seconds = time.perf_counter() - begin
        written = sum(file.stat().st_size for file in place.iterdir())
    return seconds, _resident_bytes("VmHWM") - before, max(private) - private_before, written


def _resident_bytes(kind: str = "VmRSS") -> int:
    """Memory of this process from /proc: VmRSS now, VmHWM its peak, RssAnon without mapped files; in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return run_directory.peak_memory_bytes()
    found = [line.split()[1] for line in lines if line.startswith(f"{kind}:")]
    return int(found[0]) * 1024 if found else run_directory.peak_memory_bytes()


def _reset_peak() -> None:
    """Lets VmHWM begin anew at the memory in use now; elsewhere than on Linux the peak stays the whole run's."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return


if __name__ == "__main__":
    run_benchmark(scale, flag("dim", 64, "d: embedding dimension.", 1))
