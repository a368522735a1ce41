"""The stages of pipelines.beam_prepare in order, each a pipeline, and what is known between them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipelines.beam_files import read_json
from pipelines.beam_prepare_buckets import ITEM, USER, Buckets
from pipelines.beam_prepare_core import Core, after_rounds, core_stage
from pipelines.beam_prepare_encode import encode_stage
from pipelines.beam_prepare_number import number_stage
from pipelines.beam_prepare_read import Piece, Source, inputs_of, read_stage
from pipelines.beam_prepare_slice import slice_stage
from pipelines.beam_prepare_write import write_dataset
from pipelines.beam_runner import run_pipeline
from rd_tf.data.interaction_files import shard_bounds
from rd_tf.data.preparation import filters_of, nothing_left
from rd_tf.storage import InputError


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
    ) -> dict[str, Any]:
        """Runs all stages and fills `directory`.

        Args:
            sources: as `read_stage` takes them.
            filters: what to leave out.
            shards: the flag.
            source: what the manifest tells of the input.
            directory: an empty one.

        Returns:
            The manifest.

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
        )
        if not left:
            raise InputError(nothing_left(source))
        return self._finish(buckets, left, shards, source, directory)

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
