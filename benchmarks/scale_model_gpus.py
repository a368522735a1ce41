"""The least times on GPUs, from their makers' numbers: nothing here was measured."""

import dataclasses

from benchmarks.floors import CaserSizes, ranking_work
from benchmarks.scale_model_stages import Plan, block_rows
from benchmarks.scale_model_step import batch_work

_PASSES_OF_UPKEEP = 4


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as NVIDIA's data sheets describe it.

    Attributes:
        name: of the product.
        memory_gb: 10^9 bytes.
        gflops: 10^9 operations a second in float32, without tensor cores.
        bandwidth_gb: 10^9 bytes a second.
    """

    name: str
    memory_gb: float
    gflops: float
    bandwidth_gb: float


GPUS = (
    Gpu("L4", 24, 30_300, 300),
    Gpu("A100 80GB SXM", 80, 19_500, 2039),
    Gpu("H100 SXM", 80, 67_000, 3350),
    Gpu("H200 SXM", 141, 67_000, 4800),
)


@dataclasses.dataclass(frozen=True)
class GpuFloors:
    """Seconds that a GPU takes at least.

    Attributes:
        gpu: which.
        fits: whether weights and slots of the teacher and of the student fit.
        step: 512 windows of the teacher.
        upkeep: of all rows of the teacher's tables, every 1,000 steps.
        queries: a thousand queries of the teacher against all items, in the blocks that the code makes.
    """

    gpu: Gpu
    fits: tuple[bool, bool]
    step: float
    upkeep: float
    queries: float


def make_gpu_floors(plan: Plan) -> list[GpuFloors]:
    """The least times of a plan's teacher."""
    teacher, student = plan.teacher, plan.student
    item_rows, columns = teacher.tables["item_table"]
    step = batch_work(teacher, dataclasses.replace(plan.batch(is_distilled=False), windows=512))
    sizes = CaserSizes(columns // 2, plan.world.sequence_length)
    queries = ranking_work(sizes, 1000, item_rows, block_rows(plan.block_size, item_rows))
    return [
        GpuFloors(
            gpu,
            (_fits(teacher.replica_bytes, gpu), _fits(student.replica_bytes, gpu)),
            step.seconds(gpu.gflops, gpu.bandwidth_gb),
            _PASSES_OF_UPKEEP * teacher.table_bytes / gpu.bandwidth_gb / 1e9,
            queries.seconds(gpu.gflops, gpu.bandwidth_gb),
        )
        for gpu in GPUS
    ]


def _fits(size: float, gpu: Gpu) -> bool:
    return size <= gpu.memory_gb * 1e9
