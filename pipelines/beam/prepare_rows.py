"""The middle stages of pipelines.beam.prepare: ids become numbers, the k-core is taken, rows are sorted.

An id is dealt to a bucket by its hash and numbered there; its code is number * buckets + bucket. A row lies in the
bucket of its user.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

from pipelines.beam.files import (
    pack,
    read_bytes,
    read_json,
    read_table,
    split,
    unpack,
    write_bytes,
    write_table,
)
from rd_tf.data.interactions import distinct_keys, drop_duplicates

USER, ITEM = "user", "item"
# Rounds of the k-core in one pipeline. A cluster takes minutes to start a pipeline; a needless round only reads.
_ROUNDS = 4
# USER or ITEM, and the number of a bucket or of a range of rows.
_Key = tuple[str, int]


class Piece(NamedTuple):
    """Rows of an input as a table in a file: user and item, dictionaries of text, and time.

    Attributes:
        path: of the file.
        first_row: number of its first row among the usable rows of all inputs.
        factor: what the times are multiplied by.
        shift: what is added to them then.
    """

    path: str
    first_row: int
    factor: int
    shift: int


class WriteReport(beam.PTransform):
    """Writes a few small JSON values as one list.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def expand(self, values: beam.PCollection) -> beam.PCollection:
        path = self._path
        return values | beam.combiners.ToList() | beam.Map(lambda found: write_bytes(path, json.dumps(found).encode()))


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The layout of the working directory.

    Attributes:
        work: the directory.
        count: number of buckets.
    """

    work: str
    count: int

    def of_ids(self, ids: pa.Array) -> np.ndarray:
        """`[ids] int64`: the bucket of every raw id, the same in every process."""
        return (hash_array(ids.to_numpy(zero_copy_only=False), categorize=False) % np.uint64(self.count)).astype(
            np.int64
        )

    def codes(self, bucket: int, numbers: np.ndarray) -> np.ndarray:
        """`[ids] int32`: the codes of numbers in a bucket.

        Raises:
            OverflowError: there are more than 2^31 of them, and so more than a dataset can hold.
        """
        codes = numbers.astype(np.int64) * self.count + bucket
        if len(codes) and codes.max() > np.iinfo(np.int32).max:
            raise OverflowError("more than 2^31 users or items")
        return codes.astype(np.int32)

    def of_codes(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[codes]` buckets and `[codes]` numbers in them."""
        return codes % self.count, codes // self.count

    def ids(self, kind: str, bucket: int) -> str:
        """The file of a bucket's raw ids, in the order of their numbers."""
        return f"{self.work}/ids/{kind}-{bucket:05}.arrow"

    def rows(self, bucket: int) -> str:
        """The file of a bucket's rows after duplicates are dropped: user (number in the bucket), item, time, order."""
        return f"{self.work}/rows/{bucket:05}.arrow"

    def core(self, bucket: int) -> str:
        """The file of the rows that the k-core leaves of it, likewise."""
        return f"{self.work}/core/{bucket:05}.arrow"

    def numbers(self, kind: str, range_: int) -> str:
        """The file of codes and raw ids whose first rows lie in a range of rows, in the order of these rows."""
        return f"{self.work}/numbers/{kind}-{range_:05}.arrow"

    def slice(self, number: int) -> str:
        """The file of finished rows of consecutive users."""
        return f"{self.work}/slices/{number:05}.arrow"


class Rows(NamedTuple):
    """`[rows]` each: the user's number in his bucket, the item's code, the time, the row's place in the input."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    order: np.ndarray

    def where(self, chosen: np.ndarray) -> "Rows":
        """The rows at places, or where a mask is true."""
        return Rows(*(column[chosen] for column in self))


def as_rows(table: pa.Table) -> Rows:
    """The columns of a table in a bucket's file."""
    return Rows(*(table[name].to_numpy() for name in ("user", "item", "time", "order")))


def as_table(rows: Rows) -> pa.Table:
    """A table for a bucket's file."""
    return pa.table(dict(zip(("user", "item", "time", "order"), rows, strict=True)))


def read_ids(path: str) -> pa.Array:
    """Raw ids in the order of their numbers."""
    return read_table(path)["id"].combine_chunks()


def encode_stage(pipeline: beam.Pipeline, pieces: list[Piece], buckets: Buckets, duplicates: str) -> None:
    """Numbers the ids of every bucket, brings a bucket's rows together and drops repeated visits.

    Writes the files `buckets.ids` and `buckets.rows`, and two reports: `ids.json`, a list of `[kind, bucket, ids]`, and
    `rows.json`, a list of `[bucket, rows kept, rows dropped]`.
    """
    # The ids of a bucket, with the piece and the place in its dictionary that each came from.
    numbered = (
        pipeline
        | beam.Create([tuple(piece) for piece in pieces])
        | beam.Reshuffle()
        | "Split ids" >> beam.FlatMap(_split_ids, buckets=buckets)
        | "Ids of a bucket" >> beam.GroupByKey()
        | "Number ids" >> beam.ParDo(_NumberIds(buckets)).with_outputs("report", main="numbers")
    )
    _ = numbered.report | "Report ids" >> WriteReport(f"{buckets.work}/ids.json")
    _ = (
        numbered.numbers
        | "Numbers of a piece" >> beam.GroupByKey()
        | "Encode rows" >> beam.FlatMapTuple(lambda piece, numbers: _encode_rows(piece, numbers, buckets))
        | "Rows of a bucket" >> beam.GroupByKey()
        | "Drop duplicates"
        >> beam.MapTuple(lambda bucket, packed: _drop_duplicates(bucket, packed, buckets, duplicates))
        | "Report rows" >> WriteReport(f"{buckets.work}/rows.json")
    )


def _split_ids(piece: tuple[Any, ...], buckets: Buckets) -> Iterator[tuple[_Key, tuple[tuple[Any, ...], bytes]]]:
    table = read_table(piece[0])
    for kind in (USER, ITEM):
        ids = table[kind].combine_chunks().dictionary
        for bucket, packed in split(buckets.of_ids(ids), place=np.arange(len(ids), dtype=np.int32), id=ids):
            yield (kind, bucket), (piece, packed)


class _NumberIds(beam.DoFn):
    """`((kind, bucket), [(piece, packed places and ids)])` -> `(piece, (kind, packed places and codes))`."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def process(self, element: tuple[_Key, Iterable[tuple[tuple[Any, ...], bytes]]]) -> Iterator[Any]:
        (kind, bucket), found = element
        pieces, packed = zip(*found, strict=True)
        tables = [unpack([each]) for each in packed]
        ids = pa.concat_tables(tables)["id"].combine_chunks().dictionary_encode()
        # Sorted, so that a bucket that is worked on twice gets the same numbers.
        order = pc.array_sort_indices(ids.dictionary).to_numpy()
        write_table(self._buckets.ids(kind, bucket), pa.table({"id": ids.dictionary.take(pa.array(order))}))
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.arange(len(order))
        codes = self._buckets.codes(bucket, numbers)[ids.indices.to_numpy()]
        yield beam.pvalue.TaggedOutput("report", [kind, bucket, len(order)])
        end = 0
        for piece, table in zip(pieces, tables, strict=True):
            begin, end = end, end + len(table)
            yield piece, (kind, pack(place=table["place"].combine_chunks(), code=codes[begin:end]))


def _encode_rows(
    piece: tuple[Any, ...], numbers: Iterable[tuple[str, bytes]], buckets: Buckets
) -> Iterator[tuple[int, bytes]]:
    path, first_row, factor, shift = piece
    table = read_table(path)
    codes = {}
    found = list(numbers)
    for kind in (USER, ITEM):
        column = table[kind].combine_chunks()
        mapping = unpack(packed for of, packed in found if of == kind)
        of_place = np.empty(len(column.dictionary), np.int32)
        of_place[mapping["place"].to_numpy()] = mapping["code"].to_numpy()
        codes[kind] = of_place[column.indices.to_numpy()]
    users_buckets, users = buckets.of_codes(codes[USER])
    times = table["time"].to_numpy() * factor + shift
    order = np.arange(first_row, first_row + len(table), dtype=np.int64)
    return split(users_buckets, user=users, item=codes[ITEM], time=times, order=order)


def _drop_duplicates(bucket: int, packed: Iterable[bytes], buckets: Buckets, duplicates: str) -> list[int]:
    rows = as_rows(unpack(packed))
    rows = rows.where(np.argsort(rows.order))
    keep = drop_duplicates(rows.users, rows.items, rows.times, duplicates)
    write_table(buckets.rows(bucket), as_table(rows.where(keep)))
    kept = int(np.count_nonzero(keep))
    return [bucket, kept, len(keep) - kept]


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
        size = self._core.item_codes
        return np.divmod(distinct_keys(users, items, size), size)


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
        # Not in setup(), which may run before the earlier round has written its items.
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


def number_stage(pipeline: beam.Pipeline, core: Core, bucket_numbers: list[int], rows: int) -> None:
    """Keeps the core's rows and sorts its users and items by their first rows.

    An id's first row lies in one of as many ranges of rows as there are buckets, so that a range holds no more ids than
    rows. Writes the files `buckets.core` and `buckets.numbers`, and two reports: `core.json`, a list of
    `[bucket, rows]`, and `numbers.json`, a list of `[kind, range, ids]`.

    Args:
        pipeline: gets the transforms.
        core: after its last round.
        bucket_numbers: of the buckets with rows.
        rows: usable rows of all inputs.
    """
    buckets = core.buckets
    first = (
        pipeline
        | beam.Create(bucket_numbers)
        | beam.Reshuffle()
        | "First rows" >> beam.ParDo(_FirstRows(core, rows)).with_outputs("report", "items", main="users")
    )
    items = (
        first.items
        | "First rows of an item" >> beam.GroupByKey()
        | "First row of an item"
        >> beam.FlatMapTuple(lambda bucket, packed: _first_of_items(bucket, packed, buckets, rows))
    )
    _ = (
        (first.users, items)
        | beam.Flatten()
        | "Ids of a range" >> beam.GroupByKey()
        | "Sort" >> beam.MapTuple(lambda key, packed: _sort_ids(key, packed, buckets))
        | "Report numbers" >> WriteReport(f"{buckets.work}/numbers.json")
    )
    _ = first.report | "Report core" >> WriteReport(f"{buckets.work}/core.json")


class _FirstRows(beam.DoFn):
    """Number of a bucket -> `((USER, range), packed users)`, and `(bucket of items, packed items)`."""

    def __init__(self, core: Core, rows: int) -> None:
        self._core, self._rows = core, rows

    def setup(self) -> None:
        self._filter = CoreFilter(self._core)

    def process(self, bucket: int) -> Iterator[Any]:
        buckets = self._core.buckets
        rows = as_rows(read_table(buckets.rows(bucket)))
        rows = rows.where(self._filter(rows.users, rows.items))
        yield beam.pvalue.TaggedOutput("report", [bucket, len(rows.users)])
        if not len(rows.users):
            return
        write_table(buckets.core(bucket), as_table(rows))
        # A bucket's rows are in the order of the input, so that the first index is the first row.
        users, first = np.unique(rows.users, return_index=True)
        yield from _by_range(USER, bucket, users, rows.order[first], buckets, self._rows)
        items, first = np.unique(rows.items, return_index=True)
        item_buckets, numbers = buckets.of_codes(items)
        for item_bucket, packed in split(item_buckets, number=numbers, first=rows.order[first]):
            yield beam.pvalue.TaggedOutput("items", (item_bucket, packed))


def _first_of_items(bucket: int, packed: Iterable[bytes], buckets: Buckets, rows: int) -> Iterator[Any]:
    table = unpack(packed)
    numbers, first = table["number"].to_numpy(), table["first"].to_numpy()
    order = np.argsort(first)
    items, places = np.unique(numbers[order], return_index=True)
    return _by_range(ITEM, bucket, items, first[order][places], buckets, rows)


def _by_range(
    kind: str, bucket: int, numbers: np.ndarray, first: np.ndarray, buckets: Buckets, rows: int
) -> Iterator[tuple[_Key, bytes]]:
    ids = read_ids(buckets.ids(kind, bucket)).take(pa.array(numbers))
    codes = buckets.codes(bucket, numbers)
    # Instead of first * count // rows, which overflows where both are large.
    width = -(-rows // buckets.count)
    for range_, packed in split(first // width, first=first, code=codes, id=ids):
        yield (kind, range_), packed


def _sort_ids(kind_and_range: _Key, packed: Iterable[bytes], buckets: Buckets) -> list[Any]:
    table = unpack(packed)
    order = pa.array(np.argsort(table["first"].to_numpy()))
    write_table(buckets.numbers(*kind_and_range), table.select(["code", "id"]).take(order))
    return [*kind_and_range, len(table)]


def slice_stage(
    pipeline: beam.Pipeline,
    buckets: Buckets,
    bucket_numbers: list[int],
    first_numbers: Mapping[_Key, int],
    bounds: list[int],
) -> None:
    """Numbers the rows and sorts them by user, time and place in the input.

    A bucket asks the buckets of its items for their numbers, so that no worker needs the numbers of all. Writes the
    files `buckets.slice` and a report, `slices.json`, a list of `[slice, rows]`.

    Args:
        pipeline: gets the transforms.
        buckets: the working directory.
        bucket_numbers: of the buckets with rows in the core.
        first_numbers: (kind, range) -> the lowest number of its ids.
        bounds: the first user of every slice and the number of users.
    """
    final = (
        pipeline
        | "Ranges" >> beam.Create([(*key, first) for key, first in first_numbers.items()])
        | "Spread ranges" >> beam.Reshuffle()
        | "Final numbers"
        >> beam.FlatMapTuple(lambda kind, range_, first: _final_numbers(kind, range_, first, buckets)).with_outputs(
            USER, main="items"
        )
    )
    numbers = pipeline | "Buckets" >> beam.Create(bucket_numbers) | "Spread buckets" >> beam.Reshuffle()
    wanted = numbers | "Wanted items" >> beam.FlatMap(_wanted_items, buckets=buckets)
    answers = (
        {"numbers": final.items, "wanted": wanted}
        | "Items of a bucket" >> beam.CoGroupByKey()
        | "Answer" >> beam.FlatMapTuple(lambda bucket, found: _answer(bucket, found, buckets))
    )
    _ = (
        {"users": final[USER], "items": answers}
        | "Numbers for a bucket" >> beam.CoGroupByKey()
        | "Number rows"
        >> beam.FlatMapTuple(lambda bucket, found: _number_rows(bucket, found, buckets, np.array(bounds)))
        | "Rows of a slice" >> beam.GroupByKey()
        | "Sort" >> beam.MapTuple(lambda number, packed: _sort_rows(number, packed, buckets))
        | WriteReport(f"{buckets.work}/slices.json")
    )


def _final_numbers(kind: str, range_: int, first: int, buckets: Buckets) -> Iterator[Any]:
    codes = read_table(buckets.numbers(kind, range_), ("code",))["code"].to_numpy()
    code_buckets, numbers = buckets.of_codes(codes)
    final = np.arange(first, first + len(codes), dtype=np.int32)
    for element in split(code_buckets, number=numbers, final=final):
        yield beam.pvalue.TaggedOutput(USER, element) if kind == USER else element


def _wanted_items(bucket: int, buckets: Buckets) -> Iterator[tuple[int, tuple[int, bytes]]]:
    items = np.unique(read_table(buckets.core(bucket), ("item",))["item"].to_numpy())
    item_buckets, numbers = buckets.of_codes(items)
    for item_bucket, packed in split(item_buckets, number=numbers):
        yield item_bucket, (bucket, packed)


def _answer(item_bucket: int, found: Mapping[str, Iterable[Any]], buckets: Buckets) -> Iterator[tuple[int, bytes]]:
    of_number = _by_number(found["numbers"])
    for bucket, packed in found["wanted"]:
        numbers = unpack([packed])["number"].to_numpy()
        yield bucket, pack(code=buckets.codes(item_bucket, numbers), final=of_number[numbers])


def _number_rows(
    bucket: int, found: Mapping[str, Iterable[bytes]], buckets: Buckets, bounds: np.ndarray
) -> Iterator[tuple[int, bytes]]:
    rows = as_rows(read_table(buckets.core(bucket)))
    users = _by_number(found["users"])[rows.users]
    answers = unpack(found["items"])
    codes, final = answers["code"].to_numpy(), answers["final"].to_numpy()
    order = np.argsort(codes)
    items = final[order][np.searchsorted(codes[order], rows.items)]
    slices = np.searchsorted(bounds, users, side="right") - 1
    return split(slices, user=users, item=items, time=rows.times, order=rows.order)


def _by_number(packed: Iterable[bytes]) -> np.ndarray:
    table = unpack(packed)
    numbers = table["number"].to_numpy()
    final = np.zeros(int(numbers.max()) + 1, np.int32)
    final[numbers] = table["final"].to_numpy()
    return final


def _sort_rows(number: int, packed: Iterable[bytes], buckets: Buckets) -> list[int]:
    rows = as_rows(unpack(packed))
    rows = rows.where(np.lexsort((rows.order, rows.times, rows.users)))
    # Items count from 1 in a dataset.
    write_table(
        buckets.slice(number), pa.table({"user": rows.users, "item": rows.items + np.int32(1), "time": rows.times})
    )
    return [number, len(rows.users)]
