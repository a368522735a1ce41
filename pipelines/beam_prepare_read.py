"""First stage of pipelines.beam_prepare: every input, read by one worker, becomes tables of some megabytes."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.beam_files import WriteReport, read_json, write_table
from rd_tf.data.readers import times
from rd_tf.data.readers.check_ins import bad_row, checked_pieces
from rd_tf.data.readers.checked_rows import CheckedFile, CheckedRows
from rd_tf.data.readers.files import file_sha256
from rd_tf.storage import InputError

_PIECE = 2**19
Source = dict[str, Any]


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


def read_stage(pipeline: beam.Pipeline, sources: list[Source], work: str) -> None:
    """Reads the sources.

    Args:
        pipeline: gets the transforms.
        sources: of each `path`, `format` and `columns` of a file, `tfds`, `data_dir` and `columns` of a dataset, or the
            arguments of a `world`.
        work: directory for the pieces.
    """
    numbered = list(enumerate(sources))
    reports = (
        pipeline
        | beam.Create(numbered)
        | beam.Reshuffle()
        | beam.MapTuple(lambda number, source: _read(number, source, work))
    )
    _ = reports | WriteReport(f"{work}/read.json")


def inputs_of(work: str, skip_bad_rows: bool) -> ReadInputs:
    """Joins what `read_stage` has found in the sources.

    Raises:
        InputError: what `read_check_ins` says of the same files.
    """
    reports = sorted(read_json(f"{work}/read.json"), key=lambda report: report["number"])
    skipped, first_skipped = dict[str, int](), ""
    for report in reports:
        if "error" in report:
            raise InputError(report["error"])
        if report["first_skipped"] and not skip_bad_rows:
            raise InputError(bad_row(report["first_skipped"]))
        first_skipped = first_skipped or report["first_skipped"]
        for reason, count in report["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    names = [report["name"] for report in reports]
    units, too_large = ([report[name] for report in reports] for name in ("unit", "too_large"))
    common = times.common_unit(names, units, too_large)
    pieces, rows, rows_read = [], 0, 0
    for report, factor in zip(reports, common.factors, strict=True):
        shift = rows_read if report["unit"] == times.ORDER else 0
        for number, count in enumerate(report["pieces"]):
            if count:
                pieces.append(Piece(_piece_path(work, report["number"], number), rows, factor, shift))
            rows += count
        rows_read += report["rows_read"]
    sha256 = [report["sha256"] for report in reports if report["sha256"]]
    unit = reports[0].get("time_unit") or common.unit
    return ReadInputs(pieces, rows, unit, rows_read, skipped, first_skipped, sha256)


def _read(number: int, source: Source, work: str) -> dict[str, Any]:
    # A worker's exception would reach nobody in one sentence.
    try:
        read = _read_world if "world" in source else _read_tfds if "tfds" in source else _read_file
        return {"number": number, **read(number, source, work)}
    except InputError as error:
        return {"number": number, "error": str(error)}


def _read_file(number: int, source: Source, work: str) -> dict[str, Any]:
    path = source["path"]
    found = _checked(
        path,
        lambda fractional: checked_pieces(path, source["format"], source["columns"], fractional),
        number,
        work,
    )
    return {**found, "sha256": file_sha256(path)}


def _read_tfds(number: int, source: Source, work: str) -> dict[str, Any]:
    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.data.readers.tfds import open_builder, read_tfds_pieces, records_sha256

    builder, columns = open_builder(source["tfds"], source["data_dir"], ""), source["columns"]
    name = builder.info.full_name
    found = _checked(
        name,
        lambda fractional: CheckedFile(name, read_tfds_pieces(builder, columns), columns, fractional=fractional),
        number,
        work,
    )
    return {**found, "sha256": records_sha256(builder)}


def _checked(name: str, open_: Callable[[bool], CheckedFile], number: int, work: str) -> dict[str, Any]:
    """Writes the pieces of a file that `open_` opens, given whether some time is known to be fractional."""
    try:
        file = open_(False)
        pieces = list(_write(file, number, work))
    except times.NowFractional:
        file = open_(True)
        pieces = list(_write(file, number, work))
    return {
        "name": name,
        "pieces": pieces,
        "unit": file.unit,
        "too_large": file.too_large,
        "rows_read": file.rows_read,
        "skipped": file.skipped,
        "first_skipped": file.first_skipped,
    }


def _read_world(number: int, source: Source, work: str) -> dict[str, Any]:
    from rd_tf.data.synthetic import synthetic_check_ins

    world = synthetic_check_ins(**source["world"])
    cuts = [slice(begin, begin + _PIECE) for begin in range(0, len(world.users), _PIECE)]
    rows = (
        CheckedRows(world.users[cut], world.items[cut], world.timestamps[cut], world.user_ids, world.item_ids)
        for cut in cuts
    )
    return {
        "name": "",
        "pieces": list(_write(map(_only_used_ids, rows), number, work)),
        "unit": times.INTEGER,
        "too_large": None,
        "time_unit": world.time_unit,
        "rows_read": world.rows_read,
        "skipped": {},
        "first_skipped": "",
        "sha256": "",
    }


def _only_used_ids(rows: CheckedRows) -> CheckedRows:
    users, user_codes = np.unique(rows.users, return_inverse=True)
    items, item_codes = np.unique(rows.items, return_inverse=True)
    return CheckedRows(
        user_codes, item_codes, rows.timestamps, [rows.user_ids[u] for u in users], [rows.item_ids[i] for i in items]
    )


def _write(pieces: Iterable[CheckedRows], number: int, work: str) -> Iterator[int]:
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
