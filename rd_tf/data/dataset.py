"""The dataset directory: interactions, raw ids and a manifest; and one shard of its users."""

import dataclasses
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf.data.interaction_files import (
    Entry,
    Rows,
    are_shard_entries,
    entries_of,
    read_shard,
    shard_bounds,
    shard_entries,
    shard_file,
    write_interactions,
)
from rd_tf.data.interactions import Interactions
from rd_tf.storage import InputError, atomic_directory, read_manifest, write_json

FORMAT = 1
USERS, ITEMS, MANIFEST = "users.txt", "items.txt", "manifest.json"


def save_dataset(
    interactions: Interactions,
    directory: str | os.PathLike[str],
    source: dict[str, Any],
    replace: bool = False,
    shards: int = 0,
) -> dict[str, Any]:
    """Writes a dataset directory, whole or not at all, and returns its manifest.

    Args:
        interactions: sorted by user, then time.
        directory: where it appears.
        source: what the manifest should tell of the origin: files, filters, counts (JSON values).
        replace: whether an existing directory may be replaced.
        shards: files to cut the rows into, between users; at most one a user. 0: one file that is no shard.

    Raises:
        InputError: the directory exists and `replace` is false.
    """
    num_shards = min(shards, interactions.num_users)
    bounds = shard_bounds(interactions.num_users, max(num_shards, 1))
    offsets = np.searchsorted(interactions.users, bounds.astype(interactions.users.dtype))
    manifest = make_manifest(
        interactions.num_users,
        interactions.num_items,
        len(interactions),
        interactions.fingerprint(),
        shard_entries(bounds, np.diff(offsets)) if num_shards else [],
        source,
    )
    with atomic_directory(directory, replace) as temporary:
        for number, (begin, end) in enumerate(itertools.pairwise(offsets)):
            rows = interactions.users[begin:end], interactions.items[begin:end], interactions.timestamps[begin:end]
            write_interactions(temporary / shard_file(number, num_shards), [rows])
        write_lines(temporary / USERS, interactions.user_ids)
        write_lines(temporary / ITEMS, interactions.item_ids)
        write_json(temporary / MANIFEST, manifest)
    return manifest


def make_manifest(
    users: int, items: int, interactions: int, fingerprint: str, shards: list[Entry], source: dict[str, Any]
) -> dict[str, Any]:
    """What `manifest.json` holds.

    Args:
        users: how many.
        items: how many, the padding not counted.
        interactions: how many.
        fingerprint: `Interactions.fingerprint()` of all.
        shards: as `shard_entries` gives them; none for a dataset of one file.
        source: of `save_dataset`.
    """
    return {
        "format": FORMAT,
        "users": users,
        "items": items,
        "interactions": interactions,
        "fingerprint": fingerprint,
        **({"shards": shards} if shards else {}),
        "source": source,
    }


def is_dataset(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory looks like one that `save_dataset` wrote, damaged or not."""
    path = Path(directory)
    return (path / shard_file(0, 0)).is_file() or any(path.glob("interactions-*-of-*.parquet"))


def load_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a dataset's manifest.

    Raises:
        InputError: the directory is missing, or is no dataset directory of this format.
    """
    path = Path(directory)
    if not os.fspath(directory):
        raise InputError("--dataset is empty; name a dataset directory")
    if not path.is_dir():
        raise InputError(f"--dataset={directory} is not a directory; make one with python -m rd_tf.prepare")
    if not (path / MANIFEST).is_file():
        raise InputError(f"--dataset={directory} holds no manifest.json; make a dataset with python -m rd_tf.prepare")
    required = {"format": int, "users": int, "items": int, "interactions": int, "fingerprint": str, "source": dict}
    manifest = read_manifest(path / MANIFEST, required)
    if manifest["format"] != FORMAT:
        raise InputError(
            f"{path / 'manifest.json'} has format {manifest['format']}, not {FORMAT}; prepare the data again"
        )
    entries = manifest.get("shards")
    if entries is not None and not are_shard_entries(entries, manifest["users"], manifest["interactions"]):
        raise InputError(f"{path / MANIFEST} is damaged (no usable 'shards'); prepare the data again")
    return manifest


def check_same_dataset(dataset: str | os.PathLike[str], fingerprint: str, flag: str, run_dir: str) -> None:
    """Checks that a dataset directory is the one a run was trained on.

    Args:
        dataset: the directory given as --dataset.
        fingerprint: the dataset's in the run's manifest.
        flag: the flag that named the run.
        run_dir: its value.

    Raises:
        InputError: it is another one, or no dataset directory.
    """
    check_same_fingerprint(dataset, load_manifest(dataset)["fingerprint"], fingerprint, flag, run_dir)


def check_same_fingerprint(
    dataset: str | os.PathLike[str], found: str, fingerprint: str, flag: str, run_dir: str
) -> None:
    """Does what `check_same_dataset` does, where the dataset's fingerprint, `found`, is known already."""
    if found != fingerprint:
        raise InputError(
            f"--{flag}={run_dir} was trained on the dataset {fingerprint[:16]}, but --dataset={dataset} is "
            f"{found[:16]}; name the dataset of the run"
        )


def load_dataset(directory: str | os.PathLike[str]) -> Interactions:
    """Reads a dataset directory and checks it against its fingerprint.

    Raises:
        InputError: it is missing, damaged or altered.
    """
    path, manifest = Path(directory), load_manifest(directory)
    interactions = Interactions(*_read_rows(path, manifest), _read_lines(path / USERS), _read_lines(path / ITEMS))
    if interactions.fingerprint() != manifest["fingerprint"]:
        raise InputError(f"{path} does not match the fingerprint in its manifest.json; prepare the data again")
    for name, count in (
        ("users", interactions.num_users),
        ("items", interactions.num_items),
        ("interactions", len(interactions)),
    ):
        if manifest[name] != count:
            raise InputError(
                f"{path} holds {count} {name}, not the {manifest[name]} of its manifest.json; prepare the data again"
            )
    return interactions


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes raw ids, one a line."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _read_rows(path: Path, manifest: dict[str, Any]) -> Rows:
    entries = entries_of(manifest)
    if len(entries) == 1:
        return read_shard(path, manifest, 0)
    rows = manifest["interactions"]
    users, items, timestamps = np.empty(rows, np.int32), np.empty(rows, np.int32), np.empty(rows, np.int64)
    begin = 0
    for number, entry in enumerate(entries):
        part = slice(begin, begin + entry["rows"])
        users[part], items[part], timestamps[part] = read_shard(path, manifest, number)
        begin = part.stop
    return users, items, timestamps


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); prepare the data again") from None
    # Not splitlines(): a raw id may hold U+2028 and friends.
    return text.split("\n")[:-1]


@dataclasses.dataclass(frozen=True)
class DatasetShard:
    """All interactions of some consecutive users, sorted by user, then time.

    Attributes:
        first_user: the first one's number in the whole dataset.
        num_users: how many they are.
        users: `[rows] int32`, numbers in the whole dataset.
        items: `[rows] int32`, counted from 1.
        timestamps: `[rows] int64`.
    """

    first_user: int
    num_users: int
    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


def load_shard(directory: str | os.PathLike[str], number: int) -> DatasetShard:
    """Reads one shard; where the dataset is not sharded, number 0 is everything.

    The fingerprint is the whole dataset's, so what is checked here is the number of rows and the users.

    Raises:
        InputError: it is missing or damaged, or is not what the manifest says.
        ValueError: the dataset has no shard of this number.
    """
    manifest = load_manifest(directory)
    entries = entries_of(manifest)
    if not 0 <= number < len(entries):
        raise ValueError(f"{directory} has the shards 0 to {len(entries) - 1}; received {number}")
    users, items, timestamps = read_shard(Path(directory), manifest, number)
    return DatasetShard(entries[number]["first_user"], entries[number]["users"], users, items, timestamps)
