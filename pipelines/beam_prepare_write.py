"""Last step of pipelines.beam_prepare, on the machine that runs the command: the dataset directory."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.beam_files import read_table
from rd_tf.data.dataset import ITEMS, MANIFEST, USERS, make_manifest, write_lines
from rd_tf.data.interaction_files import Rows, shard_entries, shard_file, write_interactions
from rd_tf.data.interactions import fingerprint
from rd_tf.storage import write_json

_BATCH = 2**20


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
