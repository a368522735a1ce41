"""What data of any size cost, by arithmetic: python -m benchmarks.scale_estimate --users=100000000 --items=10000000.

Bytes and operations are counted from the sizes of arrays and matrix products. Times are those counts by `MEASURED`
constants, as if work on all cores got faster with their number and nothing overlapped; network and disk are flags.
Nothing is run. Caser with the paper's settings (L = 5, T = 1, 3 negatives, K = 10), 512 windows a worker and step.

docs/scale.md shows what it prints by default.
"""

import dataclasses

from benchmarks.report import Work, flag, run_benchmark
from pipelines.report import head, row
from rd_tf.runtime import import_quietly

# Name -> value and unit, a core's (all were measured on 2 cores), the command, and its record in results/benchmarks/.
MEASURED = {
    # Of a step's time on two cores, what the update leaves.
    "computing of a step": (0.0734, "core-s/GFLOP", "benchmarks.scale", "scale.jsonl, 1,000,000 step"),
    "update of gathered rows": (6.1, "core-ns/number", "not kept", "scale_model_parts.jsonl, update, 64 parts"),
    "upkeep of all rows": (2.7, "core-s/GB", "benchmarks.scale", "scale.jsonl, 1,000,000 finish_epoch"),
    "teacher's lists": (42.2, "GFLOP/s", "benchmarks.scale", "scale.jsonl, 1,000,000 top_k"),
    "evaluation": (47.6, "GFLOP/s", "benchmarks.scale", "scale.jsonl, 1,000,000 evaluate"),
    "memory traffic": (14.6, "GB/s", "benchmarks.scale", "scale.jsonl, machine"),
    "splitting, windows": (0.155, "core-µs/check-in", "benchmarks.scale", "scale.jsonl, 1,000,000 prepare"),
    "preparing by Beam": (2.45, "core-µs/check-in", "benchmarks.beam", "beam_prepare.jsonl, 10,000,000 rows"),
    "a server without its model": (842e6, "bytes", "benchmarks.serving", "serving.jsonl, student grpc b=1 c=1"),
    "a raw id in a server": (263, "bytes", "benchmarks.serving", "serving_million.jsonl, d64_clusters grpc b=1 c=1"),
}
_LENGTH, _TARGETS, _NEGATIVES, _K, _WINDOWS, _UPKEEP_STEPS = 5, 1, 3, 10, 512, 1000
# A raw id of ten characters: with its line break in a file, and as a Python string in a list.
_ID_FILE_BYTES, _ID_BYTES = 11, 67
# `rd_tf.evaluation.frozen_scores` scores so many cells at once, of 1,024 windows or users at most.
_BLOCK_CELLS, _BLOCK = 2**25, 1024
# LazyAdam updates two tables at a time, each on one core.
_UPDATED_AT_ONCE = 2
_GB = 1e9


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset in which every user has equally many check-ins, and bytes of what is made of it (test split)."""

    users: int
    items: int
    check_ins: int

    @property
    def rows(self) -> int:
        return self.users * self.check_ins

    @property
    def train_rows(self) -> int:
        return self.users * (self.check_ins - self.check_ins // 5)

    @property
    def windows(self) -> int:
        kept = self.check_ins - self.check_ins // 5
        return self.users * max(1, kept - _LENGTH - _TARGETS + 1)

    @property
    def dataset_bytes(self) -> int:
        """User and item in int32, time in int64, and raw ids; before compression."""
        return 16 * self.rows + _ID_FILE_BYTES * (self.users + self.items)

    @property
    def windows_bytes(self) -> int:
        return 4 * self.windows * (2 + _LENGTH + _TARGETS)

    @property
    def lists_bytes(self) -> int:
        """Items in int32 and scores in float16."""
        return 6 * self.windows * _K

    @property
    def memory_bytes(self) -> int:
        """Rows, ids, two masks of the split, windows, what three samplers sort, and what an evaluation holds."""
        samplers = 3 * (4 * self.train_rows + 8 * self.users) + 4 * self.items
        held_out = self.users * (4 * (1 + _LENGTH) + 16) + 4 * self.train_rows + 12 * (self.rows - self.train_rows)
        return 18 * self.rows + _ID_BYTES * (self.users + self.items) + self.windows_bytes + samplers + held_out


@dataclasses.dataclass(frozen=True)
class Model:
    """Numbers of a ranker: in its tables, with one slot each in LazyAdam, and outside, with two."""

    name: str
    tables: int
    network: int

    @property
    def weight_bytes(self) -> int:
        return 4 * (self.tables + self.network)

    @property
    def training_bytes(self) -> int:
        """Weights and slots, which is a checkpoint too."""
        return 4 * (2 * self.tables + 3 * self.network)


def caser(data: Data, dim: int) -> Model:
    """`rd_tf.models.caser.Caser`: users, recent items, items of 2 d with a bias; filters and a dense layer."""
    from benchmarks.subjects import CaserSizes

    return Model(
        f"Caser, d = {dim}", data.users * dim + (data.items + 1) * (3 * dim + 1), CaserSizes(dim).network_weights
    )


def fossil(data: Data, dim: int) -> Model:
    """`rd_tf.models.fossil.Fossil`: L weights a user, two tables of items and a bias."""
    return Model(f"Fossil, d = {dim}", data.users * _LENGTH + (data.items + 1) * (2 * dim + 1), _LENGTH)


def gradient_numbers(dim: int, scored: int, windows: float = _WINDOWS) -> float:
    """Numbers in the rows that a worker's part of a step has gradients for: users, recent items, items and biases."""
    return windows * (dim + _LENGTH * dim + scored * (2 * dim + 1))


def received_bytes(dim: int, scored: int, workers: int, windows: float = _WINDOWS) -> float:
    """What a worker receives in a step: every other one's rows with their numbers, and the network's sums in a ring."""
    from benchmarks.subjects import CaserSizes

    rows = 4 * gradient_numbers(dim, scored, windows) + 4 * windows * (1 + _LENGTH + 2 * scored)
    return (workers - 1) * rows + 2 * (workers - 1) / workers * 4 * CaserSizes(dim).network_weights


def step_flops(dim: int, scored: int) -> int:
    """Operations of a worker's part of a step: a query and its scores, forward once and backward twice."""
    from benchmarks.subjects import CaserSizes, encode_flops

    return _WINDOWS * 3 * (encode_flops(CaserSizes(dim)) + scored * 4 * dim)


def step_seconds(data: Data, dim: int, scored: int, workers: int, cores: int, network_gb: float) -> dict[str, float]:
    """Parts of a step, which add up: computing, network, the update of all workers' rows, a step's share of upkeep."""
    update = MEASURED["update of gathered rows"][0] * 1e-9 * workers * gradient_numbers(dim, scored)
    upkeep = MEASURED["upkeep of all rows"][0] * 4 * caser(data, dim).tables / _GB
    return {
        "computing": MEASURED["computing of a step"][0] * step_flops(dim, scored) / 1e9 / cores,
        "network": received_bytes(dim, scored, workers) / network_gb / _GB,
        "update": update / min(cores, _UPDATED_AT_ONCE),
        "upkeep": upkeep / cores / _UPKEEP_STEPS,
    }


def ranking(data: Data, dim: int, queries: int) -> Work:
    """Scoring every item for some queries; the item table is read once a block."""
    from benchmarks.subjects import CaserSizes, ranking_work

    block = max(1, min(_BLOCK, _BLOCK_CELLS // (data.items + 1)))
    return ranking_work(CaserSizes(dim), queries, data.items + 1, block)


def scale_estimate(
    *,
    users: int,
    items: int,
    check_ins_per_user: int,
    dim: int,
    workers: int,
    cores: int,
    network_gb: float,
    disk_gb: float,
) -> None:
    """Prints, in Markdown, bytes and operations of every stage for data of a size, and the times that follow."""
    import_quietly()
    data = Data(users, items, check_ins_per_user)
    print("\n".join(estimate(data, dim, workers, cores, network_gb, disk_gb)))


def estimate(data: Data, dim: int, workers: int, cores: int, network_gb: float, disk_gb: float) -> list[str]:
    """The lines of `scale_estimate`."""
    model, steps = caser(data, dim), -(-data.windows // (_WINDOWS * workers))
    disk, every = disk_gb * _GB, workers * cores
    plain, distilled = _TARGETS + _NEGATIVES, _TARGETS + _NEGATIVES + _K
    lists, evaluation = (ranking(data, dim, queries) for queries in (data.windows, data.users))
    copying = MEASURED["memory traffic"][0] * every
    listing = lists.seconds(MEASURED["teacher's lists"][0] * every, copying)
    evaluating = evaluation.seconds(MEASURED["evaluation"][0] * every, copying)
    preparing = data.rows * MEASURED["preparing by Beam"][0] * 1e-6 / every
    loading = data.dataset_bytes / disk + data.rows * MEASURED["splitting, windows"][0] * 1e-6
    ids = MEASURED["a raw id in a server"][0] * (data.users + data.items)
    server = MEASURED["a server without its model"][0] + ids + model.weight_bytes
    lines = [
        f"{data.users:,} users, {data.items:,} items, {data.rows:,} check-ins, {data.windows:,} training windows; "
        f"{model.name}; {workers} x {cores} cores, {network_gb:g} GB/s of network and {disk_gb:g} GB/s of disk each; "
        f"{steps:,} steps an epoch.",
        "",
        *head("stage", "memory of a process", "disk", "network", "operations", "time"),
        row("prepare by Beam", "", size(data.dataset_bytes), "", "", duration(preparing)),
        row("load, cut windows", size(data.memory_bytes), size(data.dataset_bytes), "", "", duration(loading)),
    ]
    training = size(data.memory_bytes + model.training_bytes)
    for name, scored in (("an epoch", plain), ("an epoch, distilled", distilled)):
        moved = size(received_bytes(dim, scored, workers) * workers * steps)
        flops = size(step_flops(dim, scored) * workers * steps, "FLOP")
        seconds = steps * sum(step_seconds(data, dim, scored, workers, cores, network_gb).values())
        lines.append(row(name, training, "", moved, flops, duration(seconds)))
    written, ranked = size(2 * model.training_bytes), [size(work.flops, "FLOP") for work in (lists, evaluation)]
    lines += [
        row("a checkpoint, written and read", "", written, "", "", duration(2 * model.training_bytes / disk)),
        row("teacher's lists", size(2 * model.weight_bytes), size(data.lists_bytes), "", ranked[0], duration(listing)),
        row("evaluation of all users", training, "", "", ranked[1], duration(evaluating)),
        row("a server, float32", size(server), size(model.weight_bytes), "", "", ""),
        "",
        *head("workers", "computing", "network", "update", "upkeep", "step", "windows/s"),
    ]
    for count in (1, 2, 4, 8, 16, 64, 256):
        parts = step_seconds(data, dim, plain, count, cores, network_gb)
        total = sum(parts.values())
        times = (f"{1000 * part:.2f} ms" for part in (*parts.values(), total))
        lines.append(row(count, *times, f"{count * _WINDOWS / total:,.0f}"))
    lines += ["", *head("in training", "weights and optimizer", "data", "together")]
    for part, name in ((data, ""), (dataclasses.replace(data, users=data.users // 10), ", a tenth of the users")):
        for each in (caser(part, dim), caser(part, dim // 2), fossil(part, dim), fossil(part, dim // 2)):
            sizes = each.training_bytes, part.memory_bytes, each.training_bytes + part.memory_bytes
            lines.append(row(each.name + name, *map(size, sizes)))
    lines += ["", *head("measured, of a core", "value", "", "command", "record")]
    for name, (value, unit, command, record) in MEASURED.items():
        lines.append(row(name, f"{value:g}", unit, command, f"`{record}`"))
    return lines


def size(value: float, unit: str = "B") -> str:
    """With a prefix of thousands: 52 GB."""
    power = 0
    while value >= 999.5 and power < 6:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}{unit}"


def duration(seconds: float) -> str:
    """In the largest unit of which there are at least two: 2.3 h."""
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


if __name__ == "__main__":
    run_benchmark(
        scale_estimate,
        flag("users", 100_000_000, "Users.", 10),
        flag("items", 10_000_000, "Items.", 2),
        flag("dim", 100, "d of the ranker.", 2),
    )
