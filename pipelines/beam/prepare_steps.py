"""All stages of pipelines.beam.prepare in order: the first reads the inputs, the last writes the dataset directory."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.beam.files import read_json, read_table, run_pipeline, write_table
from pipelines.beam.prepare_rows import (
    ITEM,
    USER,
    Buckets,
    Core,
    Piece,
    WriteReport,
    after_rounds,
    core_stage,
    encode_stage,
    number_stage,
    slice_stage,
)
from rd_tf.data.dataset import (
    ITEMS,
    MANIFEST,
    USERS,
    Rows,
    make_manifest,
    shard_bounds,
    shard_entries,
    shard_file,
    write_interactions,
    write_lines,
)
from rd_tf.data.interactions import fingerprint
from rd_tf.data.readers.check_ins import InputReport, Reading, Tally, find_input, warnings_of
from rd_tf.data.readers.checked_rows import (
    INTEGER,
    NO_RANGES,
    ORDER,
    CheckedFile,
    CheckedRows,
    NowFractional,
    common_unit,
    joined_ranges,
)
from rd_tf.data.readers.files import LineCount, file_sha256
from rd_tf.prepare import filters_of, nothing_left
from rd_tf.storage import InputError, write_json

_PIECE = 2**19
_BATCH = 2**20


@dataclasses.dataclass(frozen=True)
class FileSource:
    """A file of check-ins.

    Attributes:
        path: of the file.
        format: the flag.
        columns: `user_column`, `item_column` and `time_column`.
        reading: the other flags of reading.
    """

    path: str
    format: str
    columns: dict[str, str]
    reading: Reading

    def read(self, number: int, work: str) -> "SourceReport":
        """Writes the pieces of the file."""
        file = find_input(self.path, self.format, self.columns, self.reading)
        found = _read_checked(self.path, file.checked_pieces, number, work)
        return dataclasses.replace(found, sha256=file_sha256(self.path), words=f"{self.path}: {file.words}")


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A dataset of TensorFlow Datasets, built already.

    Attributes:
        name: as TensorFlow Datasets has it.
        data_dir: where it is; empty for the usual place.
        columns: `user_column`, `item_column` and `time_column`.
        reading: the other flags of reading.
    """

    name: str
    data_dir: str
    columns: dict[str, str]
    reading: Reading

    def read(self, number: int, work: str) -> "SourceReport":
        """Writes the pieces of the dataset."""
        from rd_tf.runtime import import_quietly

        import_quietly()
        from rd_tf.data.readers.tfds import open_builder, read_tfds_pieces, records_sha256

        builder, reading = open_builder(self.name, self.data_dir, ""), self.reading
        name, columns = builder.info.full_name, reading.read_columns(self.columns)

        def pieces(fractional: bool) -> CheckedFile:
            tables = read_tfds_pieces(builder, columns)
            return CheckedFile(name, tables, columns, 0, fractional, reading.time_format, reading.min_value)

        found = _read_checked(name, pieces, number, work)
        return dataclasses.replace(found, sha256=records_sha256(builder))


@dataclasses.dataclass(frozen=True)
class WorldSource:
    """The built-in world; the attributes are the flags of the same names."""

    synthetic_users: int
    synthetic_items: int
    synthetic_visits: float
    seed: int

    def read(self, number: int, work: str) -> "SourceReport":
        """Writes the pieces of the world."""
        from rd_tf.data.synthetic import synthetic_check_ins

        world = synthetic_check_ins(**dataclasses.asdict(self))
        cuts = [slice(begin, begin + _PIECE) for begin in range(0, len(world.users), _PIECE)]
        rows = (
            CheckedRows(world.users[cut], world.items[cut], world.timestamps[cut], world.user_ids, world.item_ids)
            for cut in cuts
        )
        pieces = list(_write_pieces(map(_only_used_ids, rows), number, work))
        return SourceReport("", pieces, INTEGER, None, world.rows_read, time_unit=world.time_unit)


Source = FileSource | TfdsSource | WorldSource


@dataclasses.dataclass(frozen=True)
class SourceReport:
    """What a worker has found in a source.

    Attributes:
        name: of the source, for messages.
        pieces: rows of every piece.
        unit: of the times, as `rd_tf.data.readers.checked_rows` has them; None where no row is usable.
        too_large: what `common_unit` should know of large times.
        rows_read: of the source, the skipped ones too.
        skipped: reason -> rows.
        first_skipped: the first bad row, for the message; empty where none was.
        sha256: of the contents; empty for a world.
        time_unit: of a world.
        words: what a file was taken for.
        lines: what the lines of a text file are, as `LineCount` has them.
        below_min_rating: rows left out for their rating.
        ranges: where the times lie, as `time_ranges` has them.
    """

    name: str
    pieces: list[int]
    unit: str | None
    too_large: Any
    rows_read: int
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    first_skipped: str = ""
    sha256: str = ""
    time_unit: str = ""
    words: str = ""
    lines: list[int] | None = None
    below_min_rating: int = 0
    ranges: list[tuple[int, float, float]] = dataclasses.field(default_factory=lambda: NO_RANGES)


@dataclasses.dataclass(frozen=True)
class ReadInputs:
    """What is known when all inputs are read; the fields are those of `CheckIns`."""

    pieces: list[Piece]
    rows: int
    time_unit: str
    rows_read: int
    skipped: dict[str, int]
    first_skipped: str
    sha256: list[str]
    report: InputReport


def read_stage(pipeline: beam.Pipeline, sources: list[Source], work: str) -> None:
    """Reads every source in one worker and writes tables of some megabytes.

    Args:
        pipeline: gets the transforms.
        sources: what to read.
        work: directory for the pieces.
    """
    reports = (
        pipeline
        | beam.Create(list(enumerate(sources)))
        | beam.Reshuffle()
        | beam.MapTuple(lambda number, source: _read(number, source, work))
    )
    _ = reports | WriteReport(f"{work}/read.json")


def inputs_of(work: str, skip_bad_rows: bool) -> ReadInputs:
    """Joins what `read_stage` has found in the sources.

    Raises:
        InputError: what `read_check_ins` says of the same files.
    """
    reports, tally, ranges = [], Tally(skip_bad_rows), NO_RANGES
    for _, found in sorted(read_json(f"{work}/read.json"), key=lambda found: found[0]):
        if "error" in found:
            raise InputError(found["error"])
        report = SourceReport(**found)
        tally.add(report.rows_read, report.skipped, report.first_skipped)
        tally.below_min_rating += report.below_min_rating
        tally.lines = tally.lines + LineCount(*report.lines) if tally.lines and report.lines else None
        ranges = joined_ranges(ranges, report.ranges)
        reports.append(report)
    common = common_unit(
        [report.name for report in reports], [report.unit for report in reports], [each.too_large for each in reports]
    )
    pieces, rows, rows_read = [], 0, 0
    for number, (report, factor) in enumerate(zip(reports, common.factors, strict=True)):
        shift = rows_read if report.unit == ORDER else 0
        for place, count in enumerate(report.pieces):
            if count:
                pieces.append(Piece(_piece_path(work, number, place), rows, factor, shift))
            rows += count
        rows_read += report.rows_read
    sha256 = [report.sha256 for report in reports if report.sha256]
    unit = reports[0].time_unit or common.unit
    words = [each.words for each in reports if each.words]
    said = InputReport(words, tally.lines, tally.below_min_rating, warnings_of(ranges, unit, 0))
    return ReadInputs(pieces, rows, unit, tally.rows_read, tally.skipped, tally.first_skipped, sha256, said)


def _read(number: int, source: Source, work: str) -> tuple[int, dict[str, Any]]:
    # An InputError that a worker raises may reach nobody in one sentence, so it is reported.
    try:
        return number, dataclasses.asdict(source.read(number, work))
    except InputError as error:
        return number, {"error": str(error)}


def _read_checked(name: str, open_: Callable[[bool], CheckedFile], number: int, work: str) -> SourceReport:
    """Writes the pieces of a file that `open_` opens, given whether some time is known to be fractional."""
    try:
        file = open_(False)
        pieces = list(_write_pieces(file, number, work))
    except NowFractional:
        file = open_(True)
        pieces = list(_write_pieces(file, number, work))
    lines = list(dataclasses.astuple(file.lines)) if file.lines else None
    return SourceReport(
        name,
        pieces,
        file.unit,
        file.too_large,
        file.rows_read,
        dict(file.skipped),
        file.first_skipped,
        lines=lines,
        below_min_rating=file.below_min_rating,
        ranges=file.ranges,
    )


def _only_used_ids(rows: CheckedRows) -> CheckedRows:
    users, user_codes = np.unique(rows.users, return_inverse=True)
    items, item_codes = np.unique(rows.items, return_inverse=True)
    return CheckedRows(
        user_codes, item_codes, rows.timestamps, [rows.user_ids[u] for u in users], [rows.item_ids[i] for i in items]
    )


def _write_pieces(pieces: Iterable[CheckedRows], number: int, work: str) -> Iterator[int]:
    for count, rows in enumerate(pieces):
        columns = {
            name: pa.DictionaryArray.from_arrays(codes.astype(np.int32, copy=False), pa.array(ids, pa.large_string()))
            for name, codes, ids in (("user", rows.users, rows.user_ids), ("item", rows.items, rows.item_ids))
        }
        if len(rows.timestamps):
            write_table(_piece_path(work, number, count), pa.table({**columns, "time": rows.timestamps}))
        yield len(rows.timestamps)


def _piece_path(work: str, number: int, piece: int) -> str:
    return f"{work}/read/{number:05}-{piece:05}.arrow"


def write_dataset(
    slices: list[list[str]],
    users: int,
    items: int,
    id_tables: dict[str, list[str]],
    bounds: np.ndarray,
    sharded: bool,
    directory: Path,
    source: dict[str, Any],
) -> dict[str, Any]:
    """Writes the files that `save_dataset` would, in memory of one slice, and returns the manifest.

    Args:
        slices: the files of sorted rows of every shard, in order.
        users: how many.
        items: how many, the padding not counted.
        id_tables: the files of raw ids, in order, of "user" and "item".
        bounds: the first user of every shard and the number of users.
        sharded: whether the dataset is, else there is one element of `slices`.
        directory: gets the files.
        source: for the manifest.
    """
    files = [directory / shard_file(number, len(slices) if sharded else 0) for number in range(len(slices))]
    rows = [write_interactions(file, _rows(paths)) for file, paths in zip(files, slices, strict=True)]
    id_files = directory / USERS, directory / ITEMS
    for file, paths in zip(id_files, (id_tables["user"], id_tables["item"]), strict=True):
        write_lines(file, _ids(paths))
    digest = fingerprint(
        _column(files, "user"), _column(files, "item"), _column(files, "timestamp"), *map(_without_last_break, id_files)
    )
    entries = shard_entries(bounds, rows) if sharded else []
    manifest = make_manifest(users, items, sum(rows), digest, entries, source)
    write_json(directory / MANIFEST, manifest)
    return manifest


def _rows(paths: Iterable[str]) -> Iterator[Rows]:
    for path in paths:
        table = read_table(path)
        yield table["user"].to_numpy(), table["item"].to_numpy(), table["time"].to_numpy()


def _ids(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        for batch in read_table(path, ("id",)).to_batches(2**16):
            yield from batch.column(0).to_pylist()


def _column(files: Iterable[Path], name: str) -> Iterator[np.ndarray]:
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH, columns=[name]):
                yield batch.column(0).to_numpy()


def _without_last_break(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        parts: Iterator[bytes] = itertools.chain(iter(lambda: file.read(_BATCH), b""), [b""])
        for part, following in itertools.pairwise(parts):
            yield part if following else part[:-1]


@dataclasses.dataclass(frozen=True)
class Filters:
    """The flags of the same names."""

    duplicates: str
    min_user_items: int
    min_item_users: int
    skip_bad_rows: bool


@dataclasses.dataclass(frozen=True)
class Steps:
    """Prepares a dataset.

    Attributes:
        runner: of Beam.
        beam_options: of Beam and the runner.
        work: directory for intermediate files, which workers reach.
        bucket_rows: rows that a worker takes into memory at a time.
    """

    runner: str
    beam_options: Sequence[str]
    work: str
    bucket_rows: int

    def prepare(
        self, sources: list[Source], filters: Filters, shards: int, source: dict[str, Any], directory: Path
    ) -> tuple[dict[str, Any], InputReport]:
        """Runs all stages and fills `directory`.

        Args:
            sources: as `read_stage` takes them.
            filters: what to leave out.
            shards: the flag.
            source: what the manifest tells of the input.
            directory: an empty one.

        Returns:
            The manifest, and what there is to say of the inputs.

        Raises:
            InputError: an input cannot be used, or nothing is left of it.
        """
        self._run(lambda pipeline: read_stage(pipeline, sources, self.work))
        inputs = inputs_of(self.work, filters.skip_bad_rows)
        if inputs.sha256:
            source = {**source, "input_sha256": inputs.sha256}
        buckets = Buckets(self.work, max(1, -(-inputs.rows // self.bucket_rows)))
        kept = self._encode(inputs.pieces, buckets, filters.duplicates)
        core = self._core(buckets, filters, list(kept))
        left = self._number(core, list(kept), inputs.rows)
        source |= filters_of(
            time_unit=inputs.time_unit,
            **dataclasses.asdict(filters),
            rows_read=inputs.rows_read,
            skipped=inputs.skipped,
            first_skipped=inputs.first_skipped,
            duplicates_dropped=inputs.rows - sum(kept.values()),
            k_core_rounds=core.rounds,
            k_core_rows_dropped=sum(kept.values()) - sum(left.values()),
            below_min_rating=inputs.report.below_min_rating if source.get("min_rating") else None,
        )
        if not left:
            raise InputError(nothing_left(source))
        return self._finish(buckets, left, shards, source, directory), inputs.report

    def _run(self, build: Callable[[beam.Pipeline], Any]) -> None:
        run_pipeline(build, self.runner, self.beam_options)

    def _encode(self, pieces: list[Piece], buckets: Buckets, duplicates: str) -> dict[int, int]:
        """From the buckets that hold rows to their numbers."""
        if not pieces:
            return {}
        self._run(lambda pipeline: encode_stage(pipeline, pieces, buckets, duplicates))
        return {bucket: kept for bucket, kept, _ in sorted(read_json(f"{self.work}/rows.json"))}

    def _core(self, buckets: Buckets, filters: Filters, bucket_numbers: list[int]) -> Core:
        needed = filters.min_user_items, filters.min_item_users
        repeats = filters.duplicates == "keep_all"
        if max(needed) <= 1 or not bucket_numbers:
            return Core(buckets, 0, *needed, repeats)
        most = max(count for kind, _, count in read_json(f"{self.work}/ids.json") if kind == ITEM)
        core, finished = Core(buckets, most * buckets.count, *needed, repeats), False
        while not finished:
            before = core
            self._run(lambda pipeline, core=before: core_stage(pipeline, core, bucket_numbers))  # type: ignore[misc]
            core, finished = after_rounds(before)
        return core

    def _number(self, core: Core, bucket_numbers: list[int], rows: int) -> dict[int, int]:
        """From the buckets that hold rows of the core to their numbers."""
        if not bucket_numbers:
            return {}
        self._run(lambda pipeline: number_stage(pipeline, core, bucket_numbers, rows))
        return {bucket: count for bucket, count in sorted(read_json(f"{self.work}/core.json")) if count}

    def _finish(
        self, buckets: Buckets, left: dict[int, int], shards: int, source: dict[str, Any], directory: Path
    ) -> dict[str, Any]:
        ranges = sorted(read_json(f"{self.work}/numbers.json"))
        first_numbers, totals = {}, {USER: 0, ITEM: 0}
        for kind, range_, count in ranges:
            first_numbers[kind, range_] = totals[kind]
            totals[kind] += count
        files = max(1, min(shards, totals[USER]))
        # Slices are parts of shards: what a worker sorts at a time does not depend on --shards.
        per_file = -(-sum(left.values()) // (files * self.bucket_rows))
        bounds = shard_bounds(totals[USER], files * per_file)
        self._run(
            lambda pipeline: slice_stage(pipeline, buckets, list(left), first_numbers, [int(each) for each in bounds])
        )
        filled = {number for number, _ in read_json(f"{self.work}/slices.json")}
        numbers = [range(file * per_file, (file + 1) * per_file) for file in range(files)]
        return write_dataset(
            slices=[[buckets.slice(number) for number in each if number in filled] for each in numbers],
            users=totals[USER],
            items=totals[ITEM],
            id_tables={kind: [buckets.numbers(*key) for key in first_numbers if key[0] == kind] for kind in totals},
            bounds=bounds[::per_file],
            sharded=shards > 0,
            directory=directory,
            source=source,
        )
