"""Third stage of pipelines.beam_prepare: the k-core, some rounds a pipeline."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from pipelines.beam_files import WriteReport, pack, read_bytes, read_json, read_table, split, unpack, write_bytes
from pipelines.beam_prepare_buckets import Buckets

# A cluster takes minutes to start a pipeline, and a round that has nothing to drop only reads.
_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Core:
    """Which users and items are left after some rounds.

    A user is left if enough of his items were left a round before. Whoever has too few among the items of a round had
    too few in all later ones, so nothing need be kept of users, and of the items their state in the last two rounds.

    Attributes:
        buckets: the working directory.
        item_codes: more than the highest code of an item.
        min_user_items: distinct items that a user needs.
        min_item_users: distinct users that an item needs.
        repeats: whether a user may have several rows with one item.
        rounds: how many there were.
    """

    buckets: Buckets
    item_codes: int
    min_user_items: int
    min_item_users: int
    repeats: bool
    rounds: int = 0

    def items_path(self, rounds: int) -> str:
        """The file that tells which items are left after some rounds: a bit of every code."""
        return f"{self.buckets.work}/items-left-{rounds:05}"

    def items_left(self, rounds: int) -> np.ndarray | None:
        """`[item_codes] bool`; None before the first round, when all are."""
        if rounds < 1:
            return None
        bits = np.frombuffer(read_bytes(self.items_path(rounds)), np.uint8)
        return np.unpackbits(bits, count=self.item_codes).view(bool)


class CoreFilter:
    """Filters the rows of a bucket.

    Args:
        core: of the rounds so far.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._items, self._items_before = core.items_left(core.rounds), core.items_left(core.rounds - 1)

    def __call__(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """`[rows] bool`: the rows of users and items that are left.

        Args:
            users: `[rows] int32` numbers in the bucket.
            items: `[rows] int32` codes.
        """
        if self._items is None:
            return np.ones(len(users), bool)
        before = np.ones(len(users), bool) if self._items_before is None else self._items_before[items]
        enough = self.degrees(users[before], items[before], int(users.max()) + 1) >= self._core.min_user_items
        return enough[users] & self._items[items]

    def degrees(self, users: np.ndarray, items: np.ndarray, num_users: int) -> np.ndarray:
        """`[num_users] int64`: distinct items of every user."""
        return np.bincount(self.pairs(users, items)[0], minlength=num_users)

    def pairs(self, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Users and items without repeats."""
        if not self._core.repeats or not len(users):
            return users, items
        keys = np.sort(users.astype(np.int64) * self._core.item_codes + items)
        keys = keys[np.diff(keys, prepend=-1) != 0]
        return keys // self._core.item_codes, keys % self._core.item_codes


def core_stage(pipeline: beam.Pipeline, core: Core, bucket_numbers: list[int]) -> None:
    """Goes some rounds on: each counts what the one before has left, and judges the items.

    Writes of each the items that are left and how many rows it drops, for `after_rounds`.
    """
    done = None
    for each in _next_rounds(core):
        done = pipeline | f"Round {each.rounds + 1}" >> _Round(each, bucket_numbers, done)


def after_rounds(core: Core) -> tuple[Core, bool]:
    """The core after those rounds of `core_stage` that dropped something, and whether that was not all of them."""
    for each in _next_rounds(core):
        if not sum(read_json(_report(each))):
            return each, True
    return dataclasses.replace(core, rounds=core.rounds + _ROUNDS), False


def _next_rounds(core: Core) -> list[Core]:
    return [dataclasses.replace(core, rounds=core.rounds + more) for more in range(_ROUNDS)]


def _report(core: Core) -> str:
    return f"{core.buckets.work}/dropped-{core.rounds:05}.json"


class _Round(beam.PTransform):
    """One more round after those of `core`; begins when `before` has an element, if it is given."""

    def __init__(self, core: Core, bucket_numbers: list[int], before: beam.PCollection | None) -> None:
        super().__init__()
        self._core, self._bucket_numbers, self._before = core, bucket_numbers, before

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        core = self._core
        wait_for = [] if self._before is None else [beam.pvalue.AsSingleton(self._before)]
        counted = (
            pipeline
            | beam.Create(self._bucket_numbers)
            | beam.Reshuffle()
            | "Count" >> beam.ParDo(_Count(core), *wait_for).with_outputs("dropped", main="items")
        )
        judged = (
            counted.items
            | "Users of an item" >> beam.GroupByKey()
            | "Judge"
            >> beam.FlatMapTuple(lambda bucket, packed: _judge(bucket, packed, core.min_item_users)).with_outputs(
                "dropped", main="left"
            )
        )
        _ = (counted.dropped, judged.dropped) | beam.Flatten() | WriteReport(_report(core))
        after = dataclasses.replace(core, rounds=core.rounds + 1)
        return judged.left | beam.combiners.ToList() | beam.Map(_write_items, core=after)


class _Count(beam.DoFn):
    """Number of a bucket -> `(bucket of items, packed numbers of items and of their users)`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._filter: CoreFilter | None = None

    def process(self, bucket: int, waited_for: Any = None) -> Iterator[Any]:
        # Not in setup(), which may run before the round before has written its items.
        self._filter = self._filter or CoreFilter(self._core)
        table = read_table(self._core.buckets.rows(bucket), ("user", "item"))
        users, items = table["user"].to_numpy(), table["item"].to_numpy()
        left = self._filter(users, items)
        users, items = self._filter.pairs(users[left], items[left])
        few = np.bincount(users) < self._core.min_user_items
        yield beam.pvalue.TaggedOutput("dropped", int(np.count_nonzero(few[users])))
        codes, counts = np.unique(items, return_counts=True)
        item_buckets, numbers = self._core.buckets.of_codes(codes)
        yield from split(item_buckets, number=numbers, users=counts)


def _judge(bucket: int, packed: Iterable[bytes], least: int) -> Iterator[Any]:
    table = unpack(packed)
    users = np.bincount(table["number"].to_numpy(), weights=table["users"].to_numpy()).astype(np.int64)
    few = users < least
    yield beam.pvalue.TaggedOutput("dropped", int(users[few].sum()))
    yield bucket, pack(number=np.flatnonzero(~few).astype(np.int32))


def _write_items(left: list[Any], core: Core) -> bool:
    flags = np.zeros(core.item_codes, bool)
    for bucket, packed in left:
        flags[core.buckets.codes(bucket, unpack([packed])["number"].to_numpy())] = True
    write_bytes(core.items_path(core.rounds), np.packbits(flags).tobytes())
    return True
