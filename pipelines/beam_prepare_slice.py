"""Fifth stage of pipelines.beam_prepare: rows get their final numbers and move to the slice of their user."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.beam_files import WriteReport, pack, read_table, split, unpack, write_table
from pipelines.beam_prepare_buckets import USER, Buckets, as_rows

# Of the lowest number of the ids in a range of `Buckets.numbers`, by kind and range.
FirstNumbers = Mapping[tuple[str, int], int]


def slice_stage(
    pipeline: beam.Pipeline, buckets: Buckets, bucket_numbers: list[int], first_numbers: FirstNumbers, bounds: list[int]
) -> None:
    """Numbers the rows and sorts them by user, time and place in the input.

    A bucket asks the buckets of its items for their numbers, so that no worker needs the numbers of all. Writes the
    files `buckets.slice` and a report, `slices.json`, a list of `[slice, rows]`.

    Args:
        pipeline: gets the transforms.
        buckets: the working directory.
        bucket_numbers: of the buckets with rows in the core.
        first_numbers: where the numbers of every range begin.
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
        | "Sort" >> beam.MapTuple(lambda number, packed: _sort(number, packed, buckets))
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


def _sort(number: int, packed: Iterable[bytes], buckets: Buckets) -> list[int]:
    rows = as_rows(unpack(packed))
    rows = rows.where(np.lexsort((rows.order, rows.times, rows.users)))
    # Items count from 1 in a dataset.
    write_table(
        buckets.slice(number), pa.table({"user": rows.users, "item": rows.items + np.int32(1), "time": rows.times})
    )
    return [number, len(rows.users)]
