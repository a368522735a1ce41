"""The dataset directory: interactions (whole or a file a shard of users), raw ids and a manifest."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rd_tf.data.interactions import Interactions
from rd_tf.storage import InputError, atomic_directory, read_manifest, write_json

# users, items and timestamps of the same rows.
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
_SCHEMA = pa.schema([("user", pa.int32()), ("item", pa.int32()), ("timestamp", pa.int64())])
# Rows of a group: a file written in one piece and one written in many must not differ.
_GROUP = 2**20


def write_interactions(file: str | Path | IO[bytes], parts: Iterable[Rows]) -> int:
    """Writes `[rows]` users `int32`, items `int32` and timestamps `int64`, given in parts of any length.

    Args:
        file: a path or a stream.
        parts: all rows in order; a million of them and one part are held in memory at a time.

    Returns:
        The number of rows.
    """
    rows = 0
    with pq.ParquetWriter(file, _SCHEMA) as writer:
        for group in _groups(parts):
            writer.write_table(group, _GROUP)
            rows += len(group)
    return rows


def read_interactions(path: Path) -> Rows:
    """Reads a file as three arrays of `[rows]`.

    Raises:
        InputError: it is missing, damaged, or holds something else.
    """
    try:
        # Not read_table(): that would take path=value folders on the way for columns.
        with open(path, "rb") as stream, pq.ParquetFile(stream) as file:
            table = file.read(columns=_SCHEMA.names).select(_SCHEMA.names)
    # Damaged names of columns are no UTF-8.
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); prepare the data again") from None
    if table.schema.types != _SCHEMA.types or any(column.null_count for column in table.columns):
        raise InputError(f"{path} cannot be read (it holds {table.schema.types}); prepare the data again")
    users, items, timestamps = (column.to_numpy() for column in table.columns)
    return users, items, timestamps


def _groups(parts: Iterable[Rows]) -> Iterator[pa.Table]:
    waiting = _SCHEMA.empty_table()
    for part in parts:
        arrays = [pa.array(array, field.type) for array, field in zip(part, _SCHEMA, strict=True)]
        waiting = pa.concat_tables([waiting, pa.table(arrays, _SCHEMA)])
        whole = len(waiting) // _GROUP * _GROUP
        for first in range(0, whole, _GROUP):
            yield waiting.slice(first, _GROUP).combine_chunks()
        # Combined, it is a copy that keeps no part alive.
        waiting = waiting.slice(whole).combine_chunks()
    if len(waiting):
        yield waiting


# The file of a dataset that is not sharded.
_WHOLE = "interactions.parquet"
_FIELDS = ("first_user", "users", "rows")
Entry = dict[str, int]


def shard_file(number: int, shards: int) -> str:
    """The name of a shard's file; of all interactions where the dataset is not sharded, which is `shards` = 0."""
    return f"interactions-{number:05}-of-{shards:05}.parquet" if shards else _WHOLE


def shard_bounds(num_users: int, shards: int) -> np.ndarray:
    """`[shards + 1] int64`: the first user of every shard and the number of users; sizes differ by one at most."""
    return np.arange(shards + 1, dtype=np.int64) * num_users // shards


def shard_entries(bounds: Sequence[int] | np.ndarray, rows: Sequence[int] | np.ndarray) -> list[Entry]:
    """What a manifest says of its shards.

    Args:
        bounds: as `shard_bounds` gives them.
        rows: rows of every shard.
    """
    return [
        {"first_user": int(first), "users": int(end - first), "rows": int(count)}
        for first, end, count in zip(bounds[:-1], bounds[1:], rows, strict=True)
    ]


def are_shard_entries(entries: Any, num_users: int, num_rows: int) -> bool:
    """Whether a manifest's "shards" cut these users and rows into ranges without gaps."""
    if not isinstance(entries, list) or not entries:
        return False
    users, rows = 0, 0
    for entry in entries:
        if not isinstance(entry, dict) or any(type(entry.get(field)) is not int for field in _FIELDS):
            return False
        if entry["first_user"] != users or entry["users"] < 0 or entry["rows"] < 0:
            return False
        users, rows = users + entry["users"], rows + entry["rows"]
    return (users, rows) == (num_users, num_rows)


def entries_of(manifest: dict[str, Any]) -> list[Entry]:
    """The shards of a dataset; a dataset that is not sharded is one shard."""
    whole = {"first_user": 0, "users": manifest["users"], "rows": manifest["interactions"]}
    return manifest.get("shards", [whole])


def read_shard(directory: Path, manifest: dict[str, Any], number: int) -> Rows:
    """Reads the rows of one shard.

    Args:
        directory: of the dataset.
        manifest: of the dataset.
        number: from 0.

    Returns:
        `[rows] int32` users, numbered in the whole dataset, `[rows] int32` items, `[rows] int64` timestamps.

    Raises:
        InputError: the file is missing or damaged, or does not hold the rows and users of its manifest.
    """
    entry = entries_of(manifest)[number]
    path = directory / shard_file(number, len(manifest.get("shards", [])))
    users, items, timestamps = read_interactions(path)
    first, end = entry["first_user"], entry["first_user"] + entry["users"]
    if len(users) != entry["rows"]:
        raise InputError(f"{path} holds {len(users)} rows and not {entry['rows']}; prepare the data again")
    if len(users) and (users[0] < first or users[-1] >= end or np.any(users[1:] < users[:-1])):
        raise InputError(f"{path} does not hold the users {first} to {end - 1} in their order; prepare the data again")
    return users, items, timestamps


FORMAT = 1
USERS, ITEMS, MANIFEST = "users.txt", "items.txt", "manifest.json"
# Names of the items to show, in the order of items.txt. A dataset has them or not: nothing is computed from them.
ITEM_NAMES = "item_names.txt"


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


def read_item_names(directory: str | os.PathLike[str]) -> list[str] | None:
    """The names of a dataset's items, `names[item - 1]`, "" where there is none; None where it was given none.

    Raises:
        InputError: it is no dataset, or the file is damaged.
    """
    path, items = Path(directory) / ITEM_NAMES, load_manifest(directory)["items"]
    if not path.exists():
        return None
    names = _read_lines(path)
    if len(names) != items:
        raise InputError(
            f"{path} holds {len(names)} names for {items} items; give them again with python -m rd_tf.prepare "
            f"--dataset={directory} --item_names=FILE"
        )
    return names


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
