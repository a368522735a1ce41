"""The teacher's lists on disk: `items.npy` and `scores.npy`, or their shards, and `manifest.json`."""

import dataclasses
import os
import tokenize
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf import storage
from rd_tf.data.sharded_array import ShardedArray
from rd_tf.data.windows import Windows
from rd_tf.errors import InputError

KIND = "teacher cache"
# 2: items without a training row are in no list.
FORMAT = 2
AGAIN = "make it again with python -m rd_tf.teach"
ARRAYS = {"items": np.int32, "scores": np.float16}
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
    """Lists of all windows, memory-mapped; of a sharded cache the shards' memory maps, behind one another.

    Attributes:
        items: `[windows, K] int32`, best first, never the padding.
        scores: `[windows, K] float16`, the teacher's logits.
        manifest: the cache's manifest.
    """

    items: np.ndarray | ShardedArray
    scores: np.ndarray | ShardedArray
    manifest: dict[str, Any]

    def item_range(self) -> tuple[int, int]:
        """The lowest and the highest item of all lists, shard by shard; 1 and 1 where there are none."""
        parts = self.items.parts if isinstance(self.items, ShardedArray) else (self.items,)
        return min(int(part.min(initial=1)) for part in parts), max(int(part.max(initial=1)) for part in parts)


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
    path = Path(directory) / "manifest.json"
    manifest = storage.read_manifest(path, _REQUIRED)
    if not _is_whole(manifest):
        raise InputError(f"{path} is damaged: it does not tell rows and checksums of its files; {AGAIN}")
    return manifest


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
                f"{AGAIN}"
            )
    if manifest["k"] < k:
        raise InputError(f"teacher cache {path} has lists of {manifest['k']} items, but --k={k} is needed; {AGAIN}")
    if manifest["format"] != FORMAT:
        raise InputError(f"teacher cache {path} has format {manifest['format']}, not {FORMAT}; {AGAIN}")


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
        if storage.file_sha256(path / file) != described[f"{name}_sha256"]:
            raise InputError(f"teacher cache {path} is damaged: {file} is not what its manifest.json says; {AGAIN}")
        # Not np.load(), which takes archives too.
        array = np.lib.format.open_memmap(path / file, mode="r")
    except InputError:
        raise
    # A header is read as Python.
    except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"teacher cache {path} is damaged ({error}); {AGAIN}") from None
    rows, k = described["rows"], manifest["k"]
    if array.shape != (rows, k) or array.dtype != dtype:
        raise InputError(f"teacher cache {path} is damaged: {file} is not {rows} x {k} of {dtype}; {AGAIN}")
    return array


def _short(value: Any) -> str:
    return value[:16] if isinstance(value, str) else str(value)
