"""Writes the teacher's lists to disk, from the first window to the last."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np

from rd_tf import storage
from rd_tf.data.npy_writer import NpyWriter
from rd_tf.data.teacher_cache import ARRAYS, FORMAT, KIND, CacheKey, array_file

# (first row, items [n, K], scores [n, K]): stores the rows that follow the ones before.
Store = Callable[[int, np.ndarray, np.ndarray], None]
# What the manifest says of a pair of files: rows, items_sha256, scores_sha256.
Described = dict[str, Any]
# From a file's name to the file, open for writing bytes; whole when the block ends without an error.
OpenFile = Callable[[str], AbstractContextManager[IO[bytes]]]
_LARGEST = float(np.finfo(np.float16).max)


class ListsWriter:
    """Streams the lists of a cache, or of a shard of it, to two open files.

    Args:
        items: the file of the items.
        scores: the file of the scores.
        rows: number of windows.
        k: K.
    """

    def __init__(self, items: IO[bytes], scores: IO[bytes], rows: int, k: int) -> None:
        self._items = NpyWriter(items, (rows, k), ARRAYS["items"])
        self._scores = NpyWriter(scores, (rows, k), ARRAYS["scores"])

    def store(self, first: int, items: np.ndarray, scores: np.ndarray) -> None:
        """Stores the rows from `first` on; scores too large for half precision are clipped.

        Args:
            first: the number of rows so far.
            items: `[n, K]`.
            scores: `[n, K]`.

        Raises:
            ValueError: these are not the next rows.
        """
        if first != self._items.rows:
            raise ValueError(f"row {self._items.rows} is the next one; received row {first}")
        self._items.add(items)
        self._scores.add(np.clip(scores, -_LARGEST, _LARGEST))

    def described(self) -> Described:
        """What the manifest says of the two files, once all rows are stored."""
        return {
            "rows": self._items.rows,
            "items_sha256": self._items.sha256(),
            "scores_sha256": self._scores.sha256(),
        }


def files_in(directory: Path) -> OpenFile:
    """Opens new files of a local directory that appears as a whole."""
    return lambda name: open(directory / name, "wb")


@contextlib.contextmanager
def open_lists(open_file: OpenFile, number: int, shards: int, rows: int, k: int) -> Iterator[ListsWriter]:
    """Opens the two files of a cache, or of a shard of it, for their lists.

    Args:
        open_file: opens a file of the cache by its name.
        number: of the shard.
        shards: how many there are; 0 where the cache is not sharded.
        rows: number of windows.
        k: K.

    Yields:
        What stores the lists and then describes the files.

    Raises:
        ValueError: at the end of the block, where rows are missing.
    """
    with (
        open_file(array_file("items", number, shards)) as items,
        open_file(array_file("scores", number, shards)) as scores,
    ):
        writer = ListsWriter(items, scores, rows, k)
        yield writer
        writer.described()


def cache_manifest(key: CacheKey, k: int, files: Sequence[Described], sharded: bool) -> dict[str, Any]:
    """What a cache's `manifest.json` holds.

    Args:
        key: what the cache belongs to.
        k: K.
        files: `ListsWriter.described()` of every shard, or of the one pair of files.
        sharded: whether they are shards.
    """
    rows = sum(file["rows"] for file in files)
    head = {"kind": KIND, "format": FORMAT, "k": k, "rows": rows, **dataclasses.asdict(key)}
    return {**head, "shards": list(files)} if sharded else {**head, **files[0]}


@contextlib.contextmanager
def write_teacher_cache(
    directory: str | os.PathLike[str], key: CacheKey, rows: int, k: int, replace: bool = False
) -> Iterator[Store]:
    """Streams a cache that is not sharded to disk; it appears whole when the block ends without an error.

    Args:
        directory: where it appears.
        key: what it belongs to.
        rows: number of windows.
        k: K.
        replace: whether an existing directory may be replaced.

    Yields:
        A function of (first row, items `[n, K]`, scores `[n, K]`) that stores the next rows.
    """
    with storage.atomic_directory(directory, replace) as temporary:
        with open_lists(files_in(temporary), 0, 0, rows, k) as writer:
            yield writer.store
        storage.write_json(temporary / "manifest.json", cache_manifest(key, k, [writer.described()], sharded=False))
