"""Fourth stage of pipelines.beam_prepare: users and items in the order of their first remaining row."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.beam_files import WriteReport, read_table, split, unpack, write_table
from pipelines.beam_prepare_buckets import ITEM, USER, Buckets, as_rows, as_table, read_ids
from pipelines.beam_prepare_core import Core, CoreFilter


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
        | "Sort" >> beam.MapTuple(lambda key, packed: _sort(key, packed, buckets))
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
) -> Iterator[tuple[tuple[str, int], bytes]]:
    ids = read_ids(buckets.ids(kind, bucket)).take(pa.array(numbers))
    codes = buckets.codes(bucket, numbers)
    # Not first * count // rows: that overflows where both are large.
    width = -(-rows // buckets.count)
    for range_, packed in split(first // width, first=first, code=codes, id=ids):
        yield (kind, range_), packed


def _sort(kind_and_range: tuple[str, int], packed: Iterable[bytes], buckets: Buckets) -> list[Any]:
    table = unpack(packed)
    order = pa.array(np.argsort(table["first"].to_numpy()))
    write_table(buckets.numbers(*kind_and_range), table.select(["code", "id"]).take(order))
    return [*kind_and_range, len(table)]
