"""The tables of benchmarks.scale_model in Markdown."""

import dataclasses
from collections.abc import Iterable

from benchmarks.scale_model_check import Check
from benchmarks.scale_model_constants import Constants
from benchmarks.scale_model_gpus import make_gpu_floors
from benchmarks.scale_model_memory import make_choices
from benchmarks.scale_model_serving import make_servers
from benchmarks.scale_model_stages import Plan, make_stages
from benchmarks.scale_model_units import duration, size
from pipelines.report import head, row

_WORKERS = (1, 2, 4, 8, 16, 64, 256)
_PROBES = 16


def constants_table(constants: Constants) -> str:
    """What is measured, and where."""
    lines = head("constant", "value", "", "record")
    lines += [row(each.meaning, f"{each.value:.4g}", each.unit, f"`{each.source}`") for each in constants.listed()]
    spread = ", ".join(f"{value:.3f}" for value in constants.step_spread)
    lines.append(row("times of a step by their median, which workers draw from", spread, "", "`scale.jsonl`"))
    return _block(lines)


def checks_table(checks: Iterable[Check]) -> str:
    """What the model says and what was measured."""
    lines = head("", "modelled", "measured", "", "ratio")
    for each in checks:
        lines.append(row(each.name, f"{each.modelled:,.4g}", f"{each.measured:,.4g}", each.unit, f"{each.ratio:.2f}"))
    return _block(lines)


def plan_tables(plan: Plan, constants: Constants) -> str:
    """Everything about a plan."""
    world, cluster = plan.world, plan.cluster
    counts = (
        f"{world.users:,} users, {world.items:,} items, {world.check_ins} check-ins a user: {world.rows:,} check-ins, "
        f"{world.windows:,} training windows of L = {world.sequence_length}. {cluster.workers} "
        f"worker{'s' if cluster.workers > 1 else ''} of {cluster.cores} cores, {cluster.memory_gb:g} GB of memory, "
        f"{cluster.network_gb:g} GB/s of network and {cluster.disk_gb:g} GB/s to the shared disk each. "
        f"Batches of {plan.batch_size:,} windows, {plan.steps:,} steps an epoch."
    )
    parts = [
        counts,
        "",
        "Stages:",
        *_table(_stages(plan, constants)),
        f"A step of the teacher on more and more workers, {plan.batch(False).windows:,} windows each:",
        *_table(_workers(plan, constants)),
        "Memory of one worker in training:",
        *_table(_memory(plan)),
        f"A server of the student (d = {plan.student_dim}), one client, 2 cores:",
        *_table(_servers(plan, constants)),
        "GPUs, at the peaks in NVIDIA's data sheets (float32 without tensor cores); nothing of this was measured:",
        *_table(_gpus(plan)),
    ]
    return "\n".join(["", *parts]) + "\n"


def _stages(plan: Plan, constants: Constants) -> list[str]:
    lines = head("stage", "where", "memory of a process", "disk", "network", "operations", "time", "limit")
    memory = plan.cluster.memory_gb * 1e9
    for each in make_stages(plan, constants):
        held = size(each.held) + (" **(too much)**" if each.held > memory else "")
        moved = size(each.disk), size(each.network), size(each.flops, "FLOP")
        lines.append(row(each.name, each.where, held, *moved, duration(each.seconds), each.limit))
    return lines


def _workers(plan: Plan, constants: Constants) -> list[str]:
    lines = head(
        "workers", "computing", "slowest worker", "network", "update", "upkeep", "step", "windows/s", "speed-up"
    )
    windows, first = plan.batch(is_distilled=False).windows, 0.0
    for workers in _WORKERS:
        cluster = dataclasses.replace(plan.cluster, workers=workers)
        wider = dataclasses.replace(plan, cluster=cluster, batch_size=workers * windows)
        time = wider.step_time(plan.teacher, False, constants)
        rate = workers * windows / time.total
        first = first or rate
        parts = (f"{1000 * part:.2f} ms" for part in (*vars(time).values(), time.total))
        lines.append(row(workers, *parts, f"{rate:,.0f}", f"{rate / first:.2f}"))
    return lines


def _memory(plan: Plan) -> list[str]:
    lines = head("ranker", "weights", "optimizer", "data", "together", f"fits into {plan.cluster.memory_gb:g} GB")
    for each in make_choices(plan):
        fits = "yes" if each.total <= plan.cluster.memory_gb * 1e9 else "no"
        sizes = (size(value) for value in (each.model, each.optimizer, each.data, each.total))
        lines.append(row(each.name, *sizes, fits))
    return lines


def _servers(plan: Plan, constants: Constants) -> list[str]:
    lines = head("export", "on disk", "server's memory", "read a request", "operations", "time of a request")
    for each in make_servers(plan.student, plan.world.users, _PROBES, constants):
        sizes = size(each.export_bytes), size(each.memory_bytes), size(each.read_bytes), size(each.flops, "FLOP")
        lines.append(row(each.name, *sizes, duration(each.milliseconds / 1000)))
    return lines


def _gpus(plan: Plan) -> list[str]:
    lines = head(
        "GPU",
        "memory",
        "TFLOP/s",
        "GB/s",
        "teacher fits",
        "student fits",
        "step of 512 windows",
        "upkeep",
        "1,000 queries",
    )
    for each in make_gpu_floors(plan):
        gpu = each.gpu
        peaks = f"{gpu.memory_gb:g} GB", f"{gpu.gflops / 1000:g}", f"{gpu.bandwidth_gb:,g}"
        fits = ("yes" if fits else "no" for fits in each.fits)
        times = (duration(seconds) for seconds in (each.step, each.upkeep, each.queries))
        lines.append(row(gpu.name, *peaks, *fits, *(f"at least {time}" for time in times)))
    return lines


def _table(lines: list[str]) -> list[str]:
    return ["", *lines, ""]


def _block(lines: list[str]) -> str:
    return "\n".join(["", *lines, ""])
