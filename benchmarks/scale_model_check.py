"""How far the model is off: what it says of measured worlds, with times from one ten times smaller."""

import dataclasses

from benchmarks.floors import CaserSizes, ranking_work
from benchmarks.scale_model_constants import read_constants
from benchmarks.scale_model_rankers import caser
from benchmarks.scale_model_records import Records
from benchmarks.scale_model_stages import block_rows
from benchmarks.scale_model_step import Batch, Cluster, batch_work, messages
from benchmarks.scale_model_world import World

# What benchmarks.scale measures by default.
_DIM, _BATCH, _NEGATIVES, _K, _SAMPLES, _BLOCK = 64, 512, 3, 10, 100, 1024
_MILLI, _MEGA, _GIGA = 1e-3, 1e6, 1e9
SMALLER, LARGER = "100,000", "1,000,000"


@dataclasses.dataclass(frozen=True)
class Check:
    """One quantity.

    Attributes:
        name: of the quantity.
        unit: of both numbers.
        modelled: what the model says.
        measured: what benchmarks.scale found.
    """

    name: str
    unit: str
    modelled: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.modelled / self.measured


def make_checks(records: Records) -> list[Check]:
    """Times and bytes of the world of a million users and items, and what workers send each other in a small one.

    Raises:
        InputError: a record is missing.
    """
    constants = read_constants(records, SMALLER)
    cores = records.value("scale", "machine", "cores")
    size = int(LARGER.replace(",", ""))
    ranker, item_rows = caser(size, size, _DIM), size + 1
    one = Cluster(1, round(cores), 1, 1, 0, 1)

    def measured(case: str, key: str = "median") -> float:
        return records.value("scale", f"{LARGER} {case}", key)

    def step(batch: Batch, share: float) -> float:
        return batch_work(ranker, batch).seconds(constants.gflops.value, constants.copy_gb.value) / share / one.cores

    def ranking(gflops: float) -> float:
        work = ranking_work(CaserSizes(_DIM), 1000, item_rows, block_rows(_BLOCK, item_rows))
        return max(work.flops / gflops, work.bytes / constants.copy_gb.value) / cores / _GIGA

    plain, distilled = Batch(_BATCH, 5, 1 + _NEGATIVES), Batch(_BATCH, 5, 1 + _NEGATIVES + _K, _SAMPLES)
    rows = measured("memory data", "structures_mb.split") * _MEGA / 2
    upkeep = constants.upkeep.value * ranker.table_bytes / _GIGA / cores
    # The world that has as many rows: 31 check-ins a user.
    world = World(size, size, 31)
    windows = measured("memory data", "structures_mb.windows_sequences")
    windows += measured("memory data", "structures_mb.windows_other")
    shares = constants.step_share.value, constants.distillation_share.value
    return [
        Check("training step, 512 windows", "ms", step(plain, shares[0]) / _MILLI, measured("step")),
        Check("distillation step", "ms", step(distilled, shares[1]) / _MILLI, measured("distillation")),
        Check("upkeep of all rows", "ms", upkeep / _MILLI, measured("finish_epoch")),
        Check("1,000 teacher's lists", "s", ranking(constants.lists_gflops.value), measured("top_k")),
        Check("1,000 users evaluated", "s", ranking(constants.evaluation_gflops.value), measured("evaluate")),
        Check("split, windows, samplers", "s", constants.windows.value / _MEGA * rows, measured("prepare")),
        Check("weights", "MB", ranker.weight_bytes / _MEGA, measured("memory model", "structures_mb.weights")),
        Check("optimizer", "MB", ranker.slot_bytes / _MEGA, measured("memory model", "structures_mb.slots")),
        Check("windows", "MB", world.windows_bytes / _MEGA, windows),
        *(_network(records, workers) for workers in (2, 3)),
    ]


def _network(records: Records, workers: int) -> Check:
    """What workers send each other in an epoch."""

    def measured(key: str) -> float:
        return records.value("scale_model_network", f"{workers} workers", key)

    ranker = caser(round(measured("users")), round(measured("items")), round(measured("dim")))
    cluster = Cluster(workers, 1, 1, 1, 0, 1)
    steps = -(-measured("windows") // measured("batch_size"))
    # Rows of the whole epoch at once: what gathers are cut into makes no difference.
    sent = sum(
        workers * message.received(cluster) * (1 if message.is_gathered else steps)
        for message in messages(ranker, Batch(round(measured("windows") / workers), 5, 1 + _NEGATIVES))
    )
    name = f"between {workers} workers, an epoch of a small world"
    return Check(name, "MB", sent / _MEGA, measured("median"))
