"""The teacher's lists: one list of items and scores a window, in memory or on disk."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy_format

from rd_tf.data.windows import SplitData, UserItems, Windows
from rd_tf.storage import (
    InputError,
    atomic_directory,
    file_sha256,
    json_sha256,
    open_npy,
    read_json,
    read_manifest,
    write_json,
)


class NpyWriter:
    """Writes an array's rows as they come, to any open file, with the bytes that `np.save` of the whole would write.

    Neither the array nor a memory map of it is ever in memory, and the file may be on an object store.

    Args:
        file: open for writing bytes; whoever opened it closes it.
        shape: of the array.
        dtype: of the array.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self._file, self._shape, self._dtype = file, shape, np.dtype(dtype)
        self._digest = hashlib.sha256()
        self.rows = 0
        description = npy_format.dtype_to_descr(self._dtype)
        npy_format.write_array_header_1_0(self, {"descr": description, "fortran_order": False, "shape": shape})

    def write(self, content: bytes | memoryview) -> None:
        """Writes bytes; what NumPy's header is written by."""
        self._digest.update(content)
        self._file.write(content)

    def add(self, rows: np.ndarray) -> None:
        """Writes the next rows, `[n, ...]`, converted to the array's type."""
        self.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self.rows += len(rows)

    def sha256(self) -> str:
        """SHA-256 (hex) of the file, once all rows are there.

        Raises:
            ValueError: there are more or fewer rows than the shape says.
        """
        if self.rows != self._shape[0]:
            raise ValueError(f"{self._shape[0]} rows were announced; received {self.rows}")
        return self._digest.hexdigest()


class ShardedArray:
    """An array whose rows are those of several arrays, one after another; memory maps stay memory maps.

    `array[rows]` takes `[n]` whole numbers from 0, in any order and repeated, and copies these rows into one NumPy
    array, as indexing a NumPy array by them would. Nothing else of an array is offered.

    Args:
        parts: `[rows of the part, ...]`, at least one, of one type and, but for the rows, one shape; one may be empty.

    Attributes:
        parts: the arrays.
        shape: of the whole.
        dtype: of every part.

    Raises:
        ValueError: no parts, or they do not fit together.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        kinds = {(part.shape[1:], part.dtype) for part in parts}
        if len(kinds) != 1:
            raise ValueError(
                f"parts must be of one shape but for the rows, and of one type; received {kinds or 'none'}"
            )
        ((columns, self.dtype),) = kinds
        self.parts = tuple(parts)
        # Where every part begins, and the end of the last one.
        self._bounds = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.shape: tuple[int, ...] = (int(self._bounds[-1]), *columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The given rows: `[len(rows), ...]`.

        Raises:
            IndexError: a row below 0 or from the number of rows on.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows must be from 0 to {len(self) - 1}; received {rows.min()} to {rows.max()}")
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        # side="right": the first row of a part is that part's, not that of an empty part that begins there too.
        numbers = np.searchsorted(self._bounds, rows, side="right") - 1
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            taken[here] = self.parts[number][rows[here] - self._bounds[number]]
        return taken


KIND = "teacher cache"
# Lists that a mean over all lists is taken from.
_LOOKED_AT = 10_000
# What the scores are: a teacher's, or no more than the items' places in the list.
ScoreKind = Literal["teacher", "ranks"]
# 2: items without a training row are in no list.
FORMAT = 2
AGAIN = "make it again with python -m rd_tf.teach"
ARRAYS = {"items": np.int32, "scores": np.float16}
# Lists of a run directory are made for its own L and T by `rd_tf.teach`, and for the student's by `rd_tf.train`.
_OTHER_WINDOWS = (
    "or give the teacher's run directory as --teacher, which lists for the student's windows; lists of other teachers "
    "are made for them by python -m rd_tf.teach with --sequence_length, --target_length and --short_windows"
)
_HINTS = {
    "sequence_length": f"train the student with --sequence_length={{found}}, {_OTHER_WINDOWS}",
    "target_length": f"train the student with --target_length={{found}}, {_OTHER_WINDOWS}",
    "windows": f"train the student with the --short_windows of the lists, {_OTHER_WINDOWS}",
}
_REQUIRED = {"format": int, "k": int, "rows": int, "teacher": str}
_REQUIRED_OF_FILES = {"rows": int, "items_sha256": str, "scores_sha256": str}
_NAMES = {
    "dataset": "dataset",
    "split": "split",
    "sequence_length": "L",
    "target_length": "T",
    "windows": "windows",
    "teacher": "teacher",
    "mask": "mask",
}


@dataclasses.dataclass(frozen=True)
class CacheKey:
    """What a cache belongs to; a cache with another key is refused.

    Attributes:
        dataset: fingerprint of the dataset.
        split: "validation" or "test".
        sequence_length: L.
        target_length: T.
        windows: fingerprint of the windows, in whose order the rows are; None accepts any.
        teacher: fingerprint of the teacher's weights; None accepts any.
        mask: what was kept out of the lists; None accepts any.
    """

    dataset: str
    split: str
    sequence_length: int
    target_length: int
    windows: str | None
    teacher: str | None = None
    mask: str | None = None

    @classmethod
    def of(cls, dataset: str, split: str, windows: Windows, teacher: str | None, mask: str | None) -> "CacheKey":
        """The key of a cache of these windows; arguments as the attributes, L and T are the windows'."""
        lengths = windows.sequences.shape[1], windows.targets.shape[1]
        return cls(dataset, split, *lengths, windows.fingerprint(), teacher, mask)


@dataclasses.dataclass(frozen=True)
class TeacherCache:
    """Lists of all windows, in the order of `Windows`.

    Those of a cache directory are memory maps; of a sharded one the shards' memory maps, behind one another.

    Attributes:
        items: `[windows, K] int32`, best first, never the padding.
        scores: `[windows, K] float16`, finite and falling along a list: the teacher's, or -1, -2, ..., -K where the
            teacher gave no scores (then `has_scores` is false).
        manifest: what `manifest.json` of the cache holds or, of lists in memory, would hold but for the checksums.
    """

    items: np.ndarray | ShardedArray
    scores: np.ndarray | ShardedArray
    manifest: dict[str, Any]

    def __len__(self) -> int:
        """How many windows."""
        return self.items.shape[0]

    @property
    def k(self) -> int:
        """K, the length of a list."""
        return self.items.shape[1]

    @property
    def key(self) -> CacheKey:
        """What the lists belong to: dataset, split, windows with their L and T, teacher, mask."""
        return CacheKey(**{field.name: self.manifest[field.name] for field in dataclasses.fields(CacheKey)})

    @property
    def has_scores(self) -> bool:
        """Whether `scores` are the teacher's, not mere places."""
        return self.manifest.get("scores", "teacher") == "teacher"

    @functools.cached_property
    def score_spread(self) -> float:
        """The mean over (10,000) lists of the standard deviation of a list's scores; 1 where all lists are flat."""
        rows = np.linspace(0, len(self) - 1, min(len(self), _LOOKED_AT)).astype(np.int64)
        spread = float(self.scores[rows].astype(np.float32).std(1).mean()) if len(rows) else 0.0
        return spread or 1.0

    def repeated(self) -> int | None:
        """The first window whose list has an item twice; None where there is none."""
        first = 0
        for part in self.items.parts if isinstance(self.items, ShardedArray) else (self.items,):
            for begin in range(0, len(part), _CHUNK):
                ordered = np.sort(part[begin : begin + _CHUNK], axis=1)
                found = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
                if len(found):
                    return first + begin + int(found[0])
            first += len(part)
        return None

    def item_range(self) -> tuple[int, int]:
        """The lowest and the highest item of all lists, shard by shard; 1 and 1 where there are none."""
        parts = self.items.parts if isinstance(self.items, ShardedArray) else (self.items,)
        return min(int(part.min(initial=1)) for part in parts), max(int(part.max(initial=1)) for part in parts)


def is_teacher_cache(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds a teacher cache."""
    path = Path(directory) / "manifest.json"
    if not path.is_file():
        return False
    manifest = read_json(path)
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def load_cache_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a cache's manifest.

    Raises:
        InputError: it is missing or damaged.
    """
    path = Path(directory) / "manifest.json"
    manifest = read_manifest(path, _REQUIRED)
    if not _is_whole(manifest):
        raise InputError(f"{path} is damaged: it does not tell rows and checksums of its files; {AGAIN}")
    return manifest


# What a checksum of lists begins with, so that it is no fingerprint of weights.
LISTS = "lists:"


def lists_checksum(manifest: dict[str, Any]) -> str:
    """What a cache is known by, from the checksums of its files: whoever made it may call its teacher anything.

    Args:
        manifest: of the cache.
    """
    files = _files_of(manifest)
    return LISTS + json_sha256([[file.get(f"{name}_sha256") for name in ARRAYS] for file in files])


def load_teacher_cache(directory: str | os.PathLike[str], key: CacheKey, k: int) -> TeacherCache:
    """Opens a cache and checks that it belongs to the windows at hand.

    Args:
        directory: of the cache.
        key: what it has to belong to.
        k: K; a cache with longer lists gives their first K items.

    Raises:
        InputError: it is no cache, damaged, of another dataset, split, L, T, teacher or mask, or its lists are short.
    """
    path = Path(directory)
    if not is_teacher_cache(path):
        raise InputError(f"{path} is not a teacher cache; make one with python -m rd_tf.teach")
    manifest = load_cache_manifest(path)
    check_cache(path, manifest, key, k)
    items, scores = (
        [_open_array(path, manifest, number, name)[:, :k] for number in range(len(_files_of(manifest)))]
        for name in ARRAYS
    )
    if "shards" in manifest:
        return TeacherCache(ShardedArray(items), ShardedArray(scores), manifest)
    return TeacherCache(items[0], scores[0], manifest)


def check_cache(path: str | os.PathLike[str], manifest: dict[str, Any], key: CacheKey, k: int) -> None:
    """Checks what a cache's manifest says of it.

    Args:
        path: of the cache, for messages.
        manifest: as `load_cache_manifest` reads it.
        key: what it has to belong to.
        k: K.

    Raises:
        InputError: it is of another dataset, split, L, T, teacher or mask, or its lists are short.
    """
    for field, name in _NAMES.items():
        wanted, found = getattr(key, field), manifest.get(field)
        if wanted is not None and wanted != found:
            raise InputError(
                f"teacher cache {path} was made for {name} {_short(found)}, but {name} {_short(wanted)} is needed; "
                + _HINTS.get(field, AGAIN).format(found=found)
            )
    if manifest["k"] < k:
        raise InputError(f"teacher cache {path} has lists of {manifest['k']} items, but --k={k} is needed; {AGAIN}")
    if manifest["format"] != FORMAT:
        raise InputError(f"teacher cache {path} has format {manifest['format']}, not {FORMAT}; {AGAIN}")


# Rows that are looked at together.
_CHUNK = 2**16


def array_file(name: str, number: int, shards: int) -> str:
    """The name of an array's file.

    Args:
        name: "items" or "scores".
        number: of the shard, from 0.
        shards: how many there are; 0 where the cache is not sharded.
    """
    return f"{name}-{number:05}-of-{shards:05}.npy" if shards else f"{name}.npy"


def _files_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows and checksums of every pair of files; a cache that is not sharded is one pair."""
    return manifest.get("shards", [manifest])


def _is_whole(manifest: dict[str, Any]) -> bool:
    files = _files_of(manifest)
    if not isinstance(files, list) or not files or not all(isinstance(file, dict) for file in files):
        return False
    if any(not isinstance(file.get(name), kind) for file in files for name, kind in _REQUIRED_OF_FILES.items()):
        return False
    return manifest["rows"] == sum(file["rows"] for file in files)


def _open_array(path: Path, manifest: dict[str, Any], number: int, name: str) -> np.ndarray:
    file = array_file(name, number, len(manifest.get("shards", [])))
    described, dtype = _files_of(manifest)[number], np.dtype(ARRAYS[name])
    try:
        if file_sha256(path / file) != described[f"{name}_sha256"]:
            raise InputError(f"teacher cache {path} is damaged: {file} is not what its manifest.json says; {AGAIN}")
        array = open_npy(path / file)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"teacher cache {path} is damaged ({error}); {AGAIN}") from None
    rows, k = described["rows"], manifest["k"]
    if array.shape != (rows, k) or array.dtype != dtype:
        raise InputError(f"teacher cache {path} is damaged: {file} is not {rows} x {k} of {dtype}; {AGAIN}")
    if dtype.kind == "f" and not all(np.isfinite(array[at : at + _CHUNK]).all() for at in range(0, rows, _CHUNK)):
        raise InputError(f"teacher cache {path} is damaged: {file} holds a score that is not finite; {AGAIN}")
    return array


def _short(value: Any) -> str:
    return value[:16] if isinstance(value, str) else str(value)


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
        self._scores.add(half_precision(scores))

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
    head = lists_manifest(key, sum(file["rows"] for file in files), k)
    return {**head, "shards": list(files)} if sharded else {**head, **files[0]}


def lists_manifest(key: CacheKey, rows: int, k: int) -> dict[str, Any]:
    """The manifest of lists in memory: all but the checksums of files.

    Args:
        key: what the lists belong to.
        rows: number of windows.
        k: K.
    """
    return {"kind": KIND, "format": FORMAT, "k": k, "rows": rows, **dataclasses.asdict(key)}


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
    with atomic_directory(directory, replace) as temporary:
        with open_lists(files_in(temporary), 0, 0, rows, k) as writer:
            yield writer.store
        write_json(temporary / "manifest.json", cache_manifest(key, k, [writer.described()], sharded=False))


def save_teacher_cache(lists: TeacherCache, directory: str | os.PathLike[str], replace: bool = False) -> None:
    """Writes lists as a cache directory that is not sharded, whole or not at all.

    Args:
        lists: what to write; `load_teacher_cache` reads it again.
        directory: where it appears.
        replace: whether an existing directory may be replaced.

    Raises:
        InputError: the directory exists and `replace` is false.
    """
    rows = len(lists)
    with atomic_directory(directory, replace) as temporary:
        with open_lists(files_in(temporary), 0, 0, rows, lists.k) as writer:
            for first in range(0, rows, _CHUNK):
                chunk = np.arange(first, min(first + _CHUNK, rows))
                writer.store(first, lists.items[chunk], lists.scores[chunk])
        manifest = {name: value for name, value in lists.manifest.items() if name != "shards"}
        write_json(temporary / "manifest.json", {**manifest, **writer.described()})


# Lists up to 256 MiB are in memory, longer ones in a file.
_IN_MEMORY = 2**28


def empty_lists(rows: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for lists: items `[rows, K] int32` and scores `[rows, K] float16`, of any content.

    Large ones are memory maps of unnamed temporary files (where TMPDIR says), which vanish with them.
    """
    if rows * k * sum(np.dtype(dtype).itemsize for dtype in ARRAYS.values()) <= _IN_MEMORY:
        items, scores = (np.empty((rows, k), dtype) for dtype in ARRAYS.values())
        return items, scores
    maps = []
    for dtype in ARRAYS.values():
        with tempfile.TemporaryFile() as file:
            # Reserved now: on a full disk a write to the map would kill the process.
            os.posix_fallocate(file.fileno(), 0, rows * k * np.dtype(dtype).itemsize)
            maps.append(np.memmap(file, dtype, "r+", shape=(rows, k)))
    items, scores = maps
    return items, scores


def half_precision(scores: np.ndarray) -> np.ndarray:
    """Scores as a cache keeps them: float16, those that are too large clipped."""
    return np.clip(scores, -_LARGEST, _LARGEST).astype(np.float16)


MASKS = ("target", "seen", "none")


def check_mask(mask: str) -> None:
    """Checks that a mask is one of `MASKS`.

    Raises:
        ValueError: it is none.
    """
    if mask not in MASKS:
        raise ValueError(f"mask must be one of {', '.join(MASKS)}; received {mask!r}")


def masked_items(mask: str, windows: Windows, seen: UserItems, rows: np.ndarray) -> np.ndarray:
    """What a mask keeps out of the lists of some windows: `[len(rows), any] int32`, 0 = none.

    Args:
        mask: "target", the window's own targets (the paper); "seen", all training items of the user; "none", nothing.
        windows: the training windows.
        seen: their users' training items.
        rows: `[n]`, which windows.
    """
    if mask == "target":
        return windows.targets[rows]
    return seen.padded(windows.users[rows]) if mask == "seen" else np.zeros((len(rows), 0), np.int32)


def most_masked(mask: str, target_length: int, longest: int) -> int:
    """How many items a mask keeps out of a list at most; arguments as of `check_k`."""
    return {"target": target_length, "seen": longest, "none": 0}[mask]


def check_k(k: int, mask: str, num_items: int, target_length: int, longest: int) -> None:
    """Checks that every window has K items left.

    Args:
        k: K.
        mask: "target", "seen" or "none".
        num_items: how many items may be listed, those with a training row.
        target_length: T.
        longest: most training items of a user.

    Raises:
        InputError: fewer than K items would remain for some window.
    """
    masked = most_masked(mask, target_length, longest)
    if k > num_items - masked:
        raise InputError(
            f"--k={k} is larger than the catalogue of {num_items} items with a training row less the {masked} that "
            f"--mask={mask} keeps out; "
            + (f"use --k={num_items - masked} or less" if num_items > masked else "use another --mask, such as target")
        )


def check_k_of(data: SplitData, flags: Mapping[str, Any]) -> None:
    """Checks, before anything is trained, that --mask leaves --k items in the lists of a split.

    Args:
        data: the dataset and its split.
        flags: of a training; `k`, `mask` and `target_length` count.

    Raises:
        InputError: fewer than K items would remain for some window.
    """
    candidates, mask = int(data.is_candidate.sum()), data.protocol.mask(flags["mask"])
    try:
        check_k(flags["k"], mask, candidates, flags["target_length"], data.seen.longest)
    except InputError as error:
        raise InputError(f"{error} (split {data.name})") from None
