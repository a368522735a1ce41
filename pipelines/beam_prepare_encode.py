"""Second stage of pipelines.beam_prepare: raw ids become numbers, rows move to the bucket of their user."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.beam_files import WriteReport, pack, read_table, split, unpack, write_table
from pipelines.beam_prepare_buckets import ITEM, USER, Buckets, as_rows, as_table
from pipelines.beam_prepare_read import Piece
from rd_tf.data.interactions import drop_duplicates

_Key = tuple[str, int]


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
        # Sorted, they are numbered alike when a worker does it again.
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
