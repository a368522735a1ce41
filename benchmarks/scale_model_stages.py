"""What every stage of a distillation holds, moves, computes and takes, and what limits it."""

import dataclasses
from collections.abc import Callable

from benchmarks.floors import CaserSizes, ranking_work
from benchmarks.scale_model_constants import Constants
from benchmarks.scale_model_rankers import Ranker, caser, distinct
from benchmarks.scale_model_serving import cells, index_bytes
from benchmarks.scale_model_step import Batch, Cluster, StepTime, batch_work, messages, simulate_step
from benchmarks.scale_model_world import World

_MICRO, _MEGA, _GIGA = 1e-6, 1e6, 1e9
# Of a row between the stages of pipelines.beam.prepare: user and item in int32, time and place in int64.
_ROW_BYTES, _PAIR_BYTES, _BUCKET_ROWS = 24, 12, 1_000_000
# `rd_tf.evaluation.frozen_scores`: cells of a block of scores.
BLOCK_CELLS = 2**25
_PAGE_BYTES = 4096
_METRICS_AT_A_CUTOFF = 6
# `rd_tf.serving.search`: items a cell that k-means looks at, and its rounds.
_SAMPLED_ITEMS, _ROUNDS = 50, 10


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: what is done.
        where: on which machines.
        held: bytes in memory of one process.
        disk: bytes read and written, all processes together.
        network: bytes between processes, all together.
        flops: floating-point operations.
        seconds: time.
        limit: what takes the time.
    """

    name: str
    where: str
    held: float
    disk: float
    network: float
    flops: float
    seconds: float
    limit: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done, where.

    Attributes:
        world: the data.
        cluster: the machines.
        teacher_dim: d of the teacher.
        student_dim: d of the students.
        batch_size: windows a step, all workers together.
        negatives: a target.
        k: K.
        rank_samples: epsilon.
        block_size: windows or users scored at once.
        evaluated_users: of an evaluation on a sample.
        cutoffs: list lengths of the metrics.
        seed: of the simulation.
    """

    world: World
    cluster: Cluster
    teacher_dim: int
    student_dim: int
    batch_size: int
    negatives: int
    k: int
    rank_samples: int
    block_size: int
    evaluated_users: int
    cutoffs: int = 4
    seed: int = 0

    @property
    def teacher(self) -> Ranker:
        return caser(self.world.users, self.world.items, self.teacher_dim, self.world.sequence_length)

    @property
    def student(self) -> Ranker:
        return caser(self.world.users, self.world.items, self.student_dim, self.world.sequence_length)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-self.world.windows // self.batch_size)

    def batch(self, is_distilled: bool) -> Batch:
        """A worker's part of a step."""
        scored = self.world.target_length * (1 + self.negatives)
        windows = -(-self.batch_size // self.cluster.workers)
        extra = (self.k, self.rank_samples) if is_distilled else (0, 0)
        return Batch(windows, self.world.sequence_length, scored + extra[0], extra[1])

    def step_time(self, ranker: Ranker, is_distilled: bool, constants: Constants) -> StepTime:
        """A step's time."""
        return simulate_step(ranker, self.batch(is_distilled), self.cluster, constants, is_distilled, self.seed)


def make_stages(plan: Plan, constants: Constants) -> list[Stage]:
    """All stages in order, up to the export."""
    makers: list[Callable[[Plan, Constants], list[Stage]]] = [_prepare, _load, _train, _list, _evaluate, _export]
    return [stage for make in makers for stage in make(plan, constants)]


def _prepare(plan: Plan, constants: Constants) -> list[Stage]:
    world, cluster = plan.world, plan.cluster
    text = world.rows * constants.check_in_bytes.value
    rows = _ROW_BYTES * world.rows
    # What a bucket tells the buckets of items: each of its items once.
    pairs = _PAIR_BYTES * world.rows / _BUCKET_ROWS * distinct(_BUCKET_ROWS, world.items)
    # The k-core keeps the state of every item, twice.
    held = constants.prepare_mb.value * _MEGA + 2 * world.items
    where = "Beam workers"

    def stage(name: str, disk: float, network: float) -> Stage:
        seconds, limit = _longest(disk=_disk(disk, cluster), network=_network(network, cluster))
        return Stage(f"prepare: {name}", where, held, disk, network, 0, seconds, limit)

    computing = constants.prepare.value * _MICRO * world.rows / cluster.workers / cluster.cores
    written = world.dataset_bytes
    last = 3 * written / cluster.disk_gb / _GIGA + constants.sha256.value * written / _GIGA
    return [
        stage("read, number ids, drop duplicates", text + rows + 4 * 16 * world.rows, rows + 2 * 16 * world.rows),
        stage("a round of the k-core", 8 * world.rows, pairs),
        stage("number, sort", 3 * rows, rows + 2 * pairs),
        Stage("prepare: computing of all that", where, held, 0, 0, 0, computing, "cores"),
        Stage("prepare: write the dataset", "one machine", held, 3 * written, 0, 0, last, "disk and one core"),
    ]


def _load(plan: Plan, constants: Constants) -> list[Stage]:
    world, cluster = plan.world, plan.cluster
    read = world.dataset_bytes / cluster.disk_gb / _GIGA
    hashed = constants.sha256.value * world.dataset_bytes / _GIGA
    seconds = read + hashed + constants.windows.value * _MICRO * world.rows
    disk = world.dataset_bytes * cluster.workers
    held = world.training_bytes(with_teacher=False)
    return [Stage("load, cut windows", "every worker", held, disk, 0, 0, seconds, "one core")]


def _train(plan: Plan, constants: Constants) -> list[Stage]:
    world, cluster = plan.world, plan.cluster
    found = []
    for name, ranker, is_distilled in (
        ("teacher", plan.teacher, False),
        ("student alone", plan.student, False),
        ("student distilled", plan.student, True),
    ):
        batch, time = plan.batch(is_distilled), plan.step_time(ranker, is_distilled, constants)
        received = sum(message.received(cluster) for message in messages(ranker, batch))
        held = world.training_bytes(is_distilled) + ranker.replica_bytes
        # A list lies anywhere in a file that no memory holds.
        disk = _PAGE_BYTES * world.windows if is_distilled else 0
        found.append(
            Stage(
                f"{name}: an epoch",
                "every worker",
                held,
                disk,
                received * cluster.workers * plan.steps,
                batch_work(ranker, batch).flops * cluster.workers * plan.steps,
                time.total * plan.steps,
                time.limit,
            )
        )
        found += [_checkpoint(name, ranker, plan, constants)]
    return found


def _checkpoint(name: str, ranker: Ranker, plan: Plan, constants: Constants) -> Stage:
    size = ranker.replica_bytes
    checking, disk = constants.checkpoint.value * size / _GIGA, 2 * size / plan.cluster.disk_gb / _GIGA
    largest = max(rows * columns for rows, columns in ranker.tables.values()) * 4
    limit = "disk" if disk > checking else "one core"
    return Stage(f"{name}: a checkpoint", "worker 0, all wait", largest, 2 * size, 0, 0, checking + disk, limit)


def _list(plan: Plan, constants: Constants) -> list[Stage]:
    world, cluster, teacher = plan.world, plan.cluster, plan.teacher
    seconds, limit, flops = _ranking(plan, teacher, world.windows, constants.lists_gflops.value, constants)
    cache = world.cache_bytes(plan.k)
    disk = cache + cluster.workers * teacher.weight_bytes
    moving = _disk(disk, cluster)
    if moving > seconds:
        seconds, limit = moving, "disk"
    # Twice the weights while they are read, then the item table turned, and beside the biases.
    held = teacher.weight_bytes + max(teacher.weight_bytes, 2 * teacher.item_matrix_bytes)
    return [Stage("teacher's lists", "Beam workers", held, disk, 0, flops, seconds, limit)]


def _evaluate(plan: Plan, constants: Constants) -> list[Stage]:
    world, student = plan.world, plan.student
    held = world.training_bytes(False) + student.replica_bytes + 2 * student.item_matrix_bytes
    found = []
    for name, users in (("all users", world.users), (f"{plan.evaluated_users:,} users", plan.evaluated_users)):
        users = min(users, world.users)
        seconds, limit, flops = _ranking(plan, student, users, constants.evaluation_gflops.value, constants)
        summed = 2 * 8 * world.targets * users / world.users * (plan.cluster.workers - 1)
        metrics = world.evaluation_bytes(_METRICS_AT_A_CUTOFF * plan.cutoffs + 1) * users / world.users
        found.append(Stage(f"evaluation: {name}", "every worker", held + metrics, 0, summed, flops, seconds, limit))
    return found


def _export(plan: Plan, constants: Constants) -> list[Stage]:
    world, cluster, student = plan.world, plan.cluster, plan.student
    item_rows, columns = student.tables["item_table"]
    count = cells(item_rows)
    flops = 2.0 * (columns + 1) * count * (_ROUNDS * min(_SAMPLED_ITEMS * count, item_rows) + item_rows)
    disk = 2 * student.weight_bytes + index_bytes(item_rows, columns)
    # The ranker, and a copy of it with a row for unknown users.
    held = 2 * student.weight_bytes + world.ids_bytes
    seconds, limit = _longest(
        disk=disk / cluster.disk_gb / _GIGA, cores=flops / constants.gflops.value / cluster.cores / _GIGA
    )
    return [Stage("student: export by clusters, at least", "one machine", held, disk, 0, flops, seconds, limit)]


def block_rows(block_size: int, item_rows: int) -> int:
    """Queries that are scored at once: as `rd_tf.evaluation.frozen_scores.block_rows`."""
    return max(1, min(block_size, BLOCK_CELLS // item_rows))


def _ranking(plan: Plan, ranker: Ranker, queries: int, gflops: float, constants: Constants) -> tuple[float, str, float]:
    """Seconds on all workers, what limits them, and operations."""
    item_rows, columns = ranker.tables["item_table"]
    sizes = CaserSizes(columns // 2, plan.world.sequence_length)
    work = ranking_work(sizes, queries, item_rows, block_rows(plan.block_size, item_rows))
    cores = plan.cluster.workers * plan.cluster.cores
    arithmetic, traffic = work.flops / gflops / cores / _GIGA, work.bytes / constants.copy_gb.value / cores / _GIGA
    seconds, limit = _longest(cores=arithmetic, memory_bandwidth=traffic)
    return seconds, limit, work.flops


def _disk(size: float, cluster: Cluster) -> float:
    return size / cluster.disk_gb / cluster.workers / _GIGA


def _network(size: float, cluster: Cluster) -> float:
    # What a worker has for itself does not travel.
    others = (cluster.workers - 1) / cluster.workers
    return size * others / cluster.network_gb / cluster.workers / _GIGA


def _longest(**seconds: float) -> tuple[float, str]:
    """Parts that go on at the same time: the longest and its name."""
    name = max(seconds, key=lambda each: seconds[each])
    return seconds[name], name.replace("_", " ")
