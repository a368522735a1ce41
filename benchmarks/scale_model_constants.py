"""The measured constants of benchmarks.scale_model, each from a record of results/benchmarks/."""

import dataclasses
from typing import Any

from benchmarks.scale_model_records import Records

_MILLI, _MEGA, _GIGA = 1e-3, 1e6, 1e9
_MASK_BYTES = 2


@dataclasses.dataclass(frozen=True)
class Constant:
    """A measured number.

    Attributes:
        value: the number.
        unit: of the value.
        meaning: what it is, for the page.
        source: file and case.
    """

    value: float
    unit: str
    meaning: str
    source: str


@dataclasses.dataclass(frozen=True)
class Constants:
    """All that is measured; times are those of cores: seconds of the machine times its cores, where all take part.

    Attributes:
        gflops: a core's 10^9 operations a second in a large matrix product.
        copy_gb: a core's part of the 10^9 bytes a second of a large copy.
        step_share: floor of a training step by its time.
        distillation_share: the same with a teacher's lists.
        step_spread: times of single measurements by their median.
        lists_gflops: a core's 10^9 operations a second in the teacher's lists, selection and all.
        evaluation_gflops: the same in an evaluation.
        upkeep: core-seconds of `LazyAdam.finalize_variable_values` a GB of tables.
        update: core-seconds of `LazyAdam.apply` a number of the gathered gradients.
        windows: core-seconds of splitting, cutting windows and sorting what negatives are drawn from, a check-in.
        prepare: core-seconds of pipelines.beam.prepare a check-in.
        prepare_mb: memory of one of its processes.
        check_in_bytes: of a check-in in the text files that it read.
        checkpoint: core-seconds of a checkpoint a GB.
        sha256: core-seconds of a hash a GB.
        request_ms: the way of a request through the server, with a model that costs next to nothing.
        exact_ms: median of a request over a million items, d = 64, all scored, float32.
        int8_ms: the same, int8.
        clusters_ms: the same, 16 of 2,000 cells searched.
        server_mb: memory of a server with a small model.
        id_bytes: memory of a server beside the files of its export, a raw id.
    """

    gflops: Constant
    copy_gb: Constant
    step_share: Constant
    distillation_share: Constant
    step_spread: tuple[float, ...]
    lists_gflops: Constant
    evaluation_gflops: Constant
    upkeep: Constant
    update: Constant
    windows: Constant
    prepare: Constant
    prepare_mb: Constant
    check_in_bytes: Constant
    checkpoint: Constant
    sha256: Constant
    request_ms: Constant
    exact_ms: Constant
    int8_ms: Constant
    clusters_ms: Constant
    server_mb: Constant
    id_bytes: Constant

    def listed(self) -> list[Constant]:
        """Those that are one number, in order."""
        return [value for value in vars(self).values() if isinstance(value, Constant)]


def read_constants(records: Records, world: str = "1,000,000") -> Constants:
    """All constants.

    Args:
        records: of the benchmarks.
        world: size of the world of benchmarks.scale that training and ranking are taken from.

    Raises:
        InputError: a record is missing or lacks a value.
    """
    return Constants(**_training(records, world), **_data(records), **_serving(records))


def _training(records: Records, world: str) -> dict[str, Any]:
    def scale(case: str, key: str) -> float:
        return records.value("scale", f"{world} {case}", key)

    def source(case: str) -> str:
        return f"scale.jsonl, {world} {case}"

    machine = {key: records.value("scale", "machine", key) for key in ("cores", "peak_gflops", "bandwidth_gb")}
    cores = machine["cores"]
    step = records.find("scale", f"{world} step")
    tables = scale("memory model", "structures_mb.weights") * _MEGA
    # Two masks of a byte a row.
    rows = scale("memory data", "structures_mb.split") * _MEGA / _MASK_BYTES

    def ranking(case: str) -> float:
        return scale(case, "floor_flops") / scale(case, "median") / cores / _GIGA

    # Time of an update counts once a worker, however many windows are its own, and is measured apart.
    update = [records.value("scale_model_parts", "update, 64 parts", key) for key in ("median", "numbers")]
    return {
        "gflops": Constant(machine["peak_gflops"] / cores, "GFLOP/s", "large matrix product", "scale.jsonl, machine"),
        "copy_gb": Constant(machine["bandwidth_gb"] / cores, "GB/s", "large copy", "scale.jsonl, machine"),
        "step_share": Constant(scale("step", "share_of_floor"), "", "training step: floor by time", source("step")),
        "distillation_share": Constant(
            scale("distillation", "share_of_floor"), "", "distillation step: floor by time", source("distillation")
        ),
        "step_spread": tuple(value / step["median"] for value in step["repeats"]),
        "lists_gflops": Constant(ranking("top_k"), "GFLOP/s", "teacher's lists, selection and all", source("top_k")),
        "evaluation_gflops": Constant(
            ranking("evaluate"), "GFLOP/s", "evaluation, counting and all", source("evaluate")
        ),
        "upkeep": Constant(
            scale("finish_epoch", "median") * _MILLI * cores / tables * _GIGA,
            "core-s/GB",
            "LazyAdam's upkeep of all rows, a GB of tables",
            source("finish_epoch"),
        ),
        "update": Constant(
            update[0] * _MILLI / update[1] * _GIGA,
            "core-s/10^9",
            "LazyAdam's update, a number of the gathered gradients",
            "scale_model_parts.jsonl, update, 64 parts",
        ),
        "windows": Constant(
            scale("prepare", "median") / rows * _MEGA,
            "core-µs",
            "splitting, windows and samplers, a check-in",
            source("prepare"),
        ),
    }


def _data(records: Records) -> dict[str, Any]:
    case = "beam, *"
    rows = records.value("beam_prepare", case, "rows")
    source = f"beam_prepare.jsonl, {records.find('beam_prepare', case)['case']}"

    def part(case: str, meaning: str) -> Constant:
        value = records.value("scale_model_parts", case, "median")
        return Constant(value, "core-s/GB", meaning, f"scale_model_parts.jsonl, {case}")

    return {
        "prepare": Constant(
            records.value("beam_prepare", case, "cpu_s") / rows * _MEGA,
            "core-µs",
            "pipelines.beam.prepare, a check-in",
            source,
        ),
        "prepare_mb": Constant(
            records.value("beam_prepare", case, "rss_mb"), "MB", "a process of pipelines.beam.prepare", source
        ),
        "check_in_bytes": Constant(
            records.value("beam_prepare", case, "input_mb") * _MEGA / rows, "bytes", "a check-in as text", source
        ),
        "checkpoint": part("checkpoint", "a checkpoint: check, write, hash"),
        "sha256": part("sha256", "SHA-256"),
    }


def _serving(records: Records) -> dict[str, Any]:
    def million(case: str, key: str) -> float:
        return records.value("serving_million", f"{case} grpc b=1 c=1", key)

    def latency(case: str, meaning: str) -> Constant:
        return Constant(million(case, "p50"), "ms", meaning, f"serving_million.jsonl, {case} grpc b=1 c=1")

    small = "student grpc b=1 c=1"
    server = records.value("serving", small, "rss_mb") - records.value("serving", small, "version_bytes") / _MEGA
    beside = million("d64_clusters", "rss_mb") * _MEGA - million("d64_clusters", "version_bytes") - server * _MEGA
    return {
        "request_ms": Constant(
            records.value("serving", small, "p50"), "ms", "a request to a small model", f"serving.jsonl, {small}"
        ),
        "exact_ms": latency("d64", "a request, a million items scored, d = 64, float32"),
        "int8_ms": latency("d64_int8", "the same, int8"),
        "clusters_ms": latency("d64_clusters", "the same, 16 of 2,000 cells searched, float32"),
        "server_mb": Constant(server, "MB", "a server without its model", f"serving.jsonl, {small}"),
        "id_bytes": Constant(
            beside / million("d64_clusters", "items"),
            "bytes",
            "a server's memory beside the files of its export, a raw id",
            "serving_million.jsonl, d64_clusters grpc b=1 c=1",
        ),
    }
