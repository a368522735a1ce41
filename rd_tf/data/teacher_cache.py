"""The teacher's lists on disk: `items.npy`, `scores.npy`, `manifest.json`."""

import contextlib
import dataclasses
import os
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf import storage
from rd_tf.data.windows import Windows
from rd_tf.errors import InputError

KIND = "teacher cache"
FORMAT = 1
AGAIN = "make it again with python -m rd_tf.teach"
_ARRAYS: dict[str, np.dtype] = {"items": np.dtype(np.int32), "scores": np.dtype(np.float16)}
_REQUIRED = {"format": int, "k": int, "rows": int, "teacher": str, "items_sha256": str, "scores_sha256": str}
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
        windows: fingerprint of the windows, in whose order the rows are.
        teacher: fingerprint of the teacher's weights; None accepts any.
        mask: what was kept out of the lists; None accepts any.
    """

    dataset: str
    split: str
    sequence_length: int
    target_length: int
    windows: str
    teacher: str | None = None
    mask: str | None = None

    @classmethod
    def of(cls, dataset: str, split: str, windows: Windows, teacher: str | None, mask: str | None) -> "CacheKey":
        """The key of a cache of these windows; arguments as the attributes, L and T are the windows'."""
        lengths = windows.sequences.shape[1], windows.targets.shape[1]
        return cls(dataset, split, *lengths, windows.fingerprint(), teacher, mask)


@dataclasses.dataclass(frozen=True)
class TeacherCache:
    """Lists of all windows, memory-mapped.

    Attributes:
        items: `[windows, K] int32`, best first, never the padding.
        scores: `[windows, K] float16`, the teacher's logits.
        manifest: the cache's manifest.
    """

    items: np.ndarray
    scores: np.ndarray
    manifest: dict[str, Any]


def is_teacher_cache(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds a teacher cache."""
    path = Path(directory) / "manifest.json"
    if not path.is_file():
        return False
    manifest = storage.read_json(path)
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def load_cache_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a cache's manifest.

    Raises:
        InputError: it is missing or damaged.
    """
    return storage.read_manifest(Path(directory) / "manifest.json", _REQUIRED)


@contextlib.contextmanager
def write_teacher_cache(
    directory: str | os.PathLike[str], key: CacheKey, rows: int, k: int, replace: bool = False
) -> Iterator[Callable[[int, np.ndarray, np.ndarray], None]]:
    """Streams a cache to disk; it appears whole when the block ends without an error.

    Args:
        directory: where it appears.
        key: what it belongs to.
        rows: number of windows.
        k: K.
        replace: whether an existing directory may be replaced.

    Yields:
        A function of (first row, items `[n, K]`, scores `[n, K]`) that stores rows.
    """
    with storage.atomic_directory(directory, replace) as temporary:
        items = np.lib.format.open_memmap(temporary / "items.npy", "w+", np.int32, (rows, k))
        scores = np.lib.format.open_memmap(temporary / "scores.npy", "w+", np.float16, (rows, k))
        # A memory map on a full disk ends in SIGBUS; asking for the blocks first ends in an OSError.
        for array, name in ((items, "items.npy"), (scores, "scores.npy")):
            with open(temporary / name, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
        largest = float(np.finfo(np.float16).max)

        def store(first: int, block_items: np.ndarray, block_scores: np.ndarray) -> None:
            items[first : first + len(block_items)] = block_items
            scores[first : first + len(block_scores)] = np.clip(block_scores, -largest, largest)

        yield store
        items.flush()
        scores.flush()
        contents = {f"{name}_sha256": storage.file_sha256(temporary / f"{name}.npy") for name in ("items", "scores")}
        storage.write_json(
            temporary / "manifest.json",
            {"kind": KIND, "format": FORMAT, "k": k, "rows": rows, **dataclasses.asdict(key), **contents},
        )


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
    for field, name in _NAMES.items():
        wanted, found = getattr(key, field), manifest.get(field)
        if wanted is not None and wanted != found:
            raise InputError(
                f"teacher cache {path} was made for {name} {_short(found)}, but {name} {_short(wanted)} is needed; "
                f"{AGAIN}"
            )
    if manifest["k"] < k:
        raise InputError(f"teacher cache {path} has lists of {manifest['k']} items, but --k={k} is needed; {AGAIN}")
    if manifest["format"] != FORMAT:
        raise InputError(f"teacher cache {path} has format {manifest['format']}, not {FORMAT}; {AGAIN}")
    items, scores = (_open_array(path, manifest, name, dtype) for name, dtype in _ARRAYS.items())
    return TeacherCache(items[:, :k], scores[:, :k], manifest)


def _open_array(path: Path, manifest: dict[str, Any], name: str, dtype: np.dtype) -> np.ndarray:
    shape = (manifest["rows"], manifest["k"])
    try:
        if storage.file_sha256(path / f"{name}.npy") != manifest[f"{name}_sha256"]:
            raise InputError(f"teacher cache {path} is damaged: {name}.npy is not what its manifest.json says; {AGAIN}")
        # Not np.load(), which takes archives too.
        array = np.lib.format.open_memmap(path / f"{name}.npy", mode="r")
    except InputError:
        raise
    # A header is read as Python.
    except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"teacher cache {path} is damaged ({error}); {AGAIN}") from None
    if array.shape != shape or array.dtype != dtype:
        raise InputError(f"teacher cache {path} is damaged: {name}.npy is not {shape[0]} x {shape[1]} {dtype}; {AGAIN}")
    return array


def _short(value: Any) -> str:
    return value[:16] if isinstance(value, str) else str(value)
