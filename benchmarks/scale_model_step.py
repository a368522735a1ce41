"""A training step on several workers, simulated: computing, the slowest worker, collectives beside it, the update."""

import dataclasses

import numpy as np

from benchmarks.floors import CaserSizes, TableRows, Work, encode_flops, step_work
from benchmarks.scale_model_constants import Constants
from benchmarks.scale_model_rankers import FLOAT, Ranker, distinct

_GIGA, _MILLI = 1e9, 1e-3
_STEPS = 1000
# `LazyAdam.upkeep_steps` as training makes it.
UPKEEP_STEPS = 1000
# Operations on a table follow each other and each runs on one core; so many tables were updated at once when measured.
_UPDATED_AT_ONCE = 2
# `IndexedSlices` are gathered as lengths, values and indices.
_GATHERS = 3


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Equal machines, each a worker.

    Attributes:
        workers: how many.
        cores: of a worker; work that runs on all cores is taken to be as much faster as they are many.
        memory_gb: 10^9 bytes of a worker.
        network_gb: 10^9 bytes a second into a worker, and as many out of it.
        latency_ms: from one worker to the next.
        disk_gb: 10^9 bytes a second between a worker and the disk that all share.
    """

    workers: int
    cores: int
    memory_gb: float
    network_gb: float
    latency_ms: float
    disk_gb: float


@dataclasses.dataclass(frozen=True)
class Batch:
    """A worker's part of a step.

    Attributes:
        windows: how many.
        sequence_length: L.
        scored: items scored with a gradient, a window: targets, negatives, teacher's list.
        sampled: items scored without one, shared by 8 windows.
    """

    windows: int
    sequence_length: int
    scored: int
    sampled: int = 0

    def gathered_rows(self, ranker: Ranker) -> dict[str, int]:
        """Rows of the gradient of each table, a row for every use of it: Caser's."""
        uses = {"user_table": 1, "sequence_table": self.sequence_length, "item_table": self.scored}
        return {name: self.windows * uses.get(name, self.scored) for name in ranker.tables}

    def gradient_numbers(self, ranker: Ranker) -> int:
        """Numbers in the gradients of all variables."""
        return ranker.network + sum(rows * ranker.tables[name][1] for name, rows in self.gathered_rows(ranker).items())


@dataclasses.dataclass(frozen=True)
class Message:
    """What one variable sends in a step.

    Attributes:
        bytes: of one worker.
        ready: share of the worker's own computing after which it can be sent.
        is_gathered: every worker's part goes to all, as rows of tables do; else the parts are added up.
    """

    bytes: float
    ready: float
    is_gathered: bool

    def seconds(self, cluster: Cluster) -> float:
        """Time around the ring of workers."""
        others = cluster.workers - 1
        latency = others * cluster.latency_ms * _MILLI
        if self.is_gathered:
            return others * self.bytes / cluster.network_gb / _GIGA + _GATHERS * latency
        return 2 * others / cluster.workers * self.bytes / cluster.network_gb / _GIGA + 2 * latency

    def received(self, cluster: Cluster) -> float:
        """Bytes into one worker."""
        others = cluster.workers - 1
        return self.bytes * (others if self.is_gathered else 2 * others / cluster.workers)


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step, in parts that add up, means over the simulated steps.

    Attributes:
        computing: forward and backward pass of a worker that is neither slow nor fast.
        waiting: until the slowest worker has done its part.
        network: that is left when all have computed.
        update: of all workers' rows, the same in every worker.
        upkeep: of all rows of the tables, a step's part of it.
    """

    computing: float
    waiting: float
    network: float
    update: float
    upkeep: float

    @property
    def total(self) -> float:
        return self.computing + self.waiting + self.network + self.update + self.upkeep

    @property
    def limit(self) -> str:
        """The part that takes longest."""
        names = {
            "waiting": "the slowest worker",
            "update": "update of all workers' rows",
            "upkeep": "upkeep of all rows",
        }
        longest = max(vars(self), key=vars(self).get)  # type: ignore[arg-type]
        return names.get(longest, longest)


def batch_work(ranker: Ranker, batch: Batch) -> Work:
    """Floor of a worker's part of a step."""
    sizes = CaserSizes(ranker.tables["sequence_table"][1], batch.sequence_length)
    groups = -(-batch.windows // 8)
    rows = batch.gathered_rows(ranker)
    items = ranker.tables["item_table"][0]
    touched = TableRows(
        users=round(distinct(rows["user_table"], ranker.tables["user_table"][0])),
        sequence_items=round(distinct(rows["sequence_table"], items)),
        scored_items=round(distinct(rows["item_table"], items)),
        sampled_items=round(distinct(groups * batch.sampled, items)),
    )
    return step_work(sizes, batch.windows, batch.scored, batch.sampled, touched, table_slots=1)


def messages(ranker: Ranker, batch: Batch) -> list[Message]:
    """What Caser's variables send, in the order in which the backward pass is done with them."""
    sizes = CaserSizes(ranker.tables["sequence_table"][1], batch.sequence_length)
    encoding, scoring = encode_flops(sizes), batch.scored * 4 * sizes.dim
    # Forward once, backward twice as much, scores first.
    scored = (encoding + 3 * scoring) / (3 * (encoding + scoring))
    rows = batch.gathered_rows(ranker)
    found = [
        Message(rows[name] * FLOAT * (columns + 1), 1.0 if name == "sequence_table" else scored, True)
        for name, (_, columns) in ranker.tables.items()
    ]
    found.append(Message(FLOAT * ranker.network, 1.0, False))
    return sorted(found, key=lambda message: message.ready)


def simulate_step(
    ranker: Ranker, batch: Batch, cluster: Cluster, constants: Constants, is_distilled: bool = False, seed: int = 0
) -> StepTime:
    """Simulates 1,000 steps: every worker draws its time from the measured spread, collectives wait for the slowest.

    Args:
        ranker: a Caser.
        batch: of one worker.
        cluster: where.
        constants: measured.
        is_distilled: whether the batch has teacher's lists.
        seed: of the draws.
    """
    floor = batch_work(ranker, batch).seconds(constants.gflops.value, constants.copy_gb.value)
    share = (constants.distillation_share if is_distilled else constants.step_share).value
    own_update = constants.update.value * batch.gradient_numbers(ranker) / _GIGA
    own = max(floor / share - own_update, 0.0) / cluster.cores
    update = own_update * cluster.workers / min(cluster.cores, _UPDATED_AT_ONCE)
    upkeep = constants.upkeep.value * ranker.table_bytes / _GIGA / cluster.cores / UPKEEP_STEPS
    spread = np.random.default_rng(seed).choice(constants.step_spread, (_STEPS, cluster.workers))
    computing, slowest = float(own * spread.mean()), own * spread.max(axis=1)
    link_is_free = np.zeros(_STEPS)
    if cluster.workers > 1:
        for message in messages(ranker, batch):
            link_is_free = np.maximum(link_is_free, message.ready * slowest) + message.seconds(cluster)
    network = float(np.maximum(link_is_free - slowest, 0.0).mean())
    return StepTime(computing, float(slowest.mean()) - computing, network, update, upkeep)
