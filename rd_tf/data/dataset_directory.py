"""A dataset on disk: `interactions.parquet`, `users.txt`, `items.txt`, `manifest.json`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rd_tf import storage
from rd_tf.data.interactions import Interactions
from rd_tf.errors import InputError

FORMAT = 1
_COLUMNS = {"user": pa.int32(), "item": pa.int32(), "timestamp": pa.int64()}


def save_dataset(
    interactions: Interactions, directory: str | os.PathLike[str], source: dict[str, Any], replace: bool = False
) -> dict[str, Any]:
    """Writes a dataset directory, whole or not at all, and returns its manifest.

    Args:
        interactions: sorted by user, then time.
        directory: where it appears.
        source: what the manifest should tell of the origin: files, filters, counts (JSON values).
        replace: whether an existing directory may be replaced.

    Raises:
        InputError: the directory exists and `replace` is false.
    """
    manifest = {
        "format": FORMAT,
        "users": interactions.num_users,
        "items": interactions.num_items,
        "interactions": len(interactions),
        "fingerprint": interactions.fingerprint(),
        "source": source,
    }
    columns = (interactions.users, interactions.items, interactions.timestamps)
    table = pa.table({name: pa.array(c, t) for (name, t), c in zip(_COLUMNS.items(), columns, strict=True)})
    with storage.atomic_directory(directory, replace) as temporary:
        pq.write_table(table, temporary / "interactions.parquet")
        write_lines(temporary / "users.txt", interactions.user_ids)
        write_lines(temporary / "items.txt", interactions.item_ids)
        storage.write_json(temporary / "manifest.json", manifest)
    return manifest


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
    if not (path / "manifest.json").is_file():
        raise InputError(f"--dataset={directory} holds no manifest.json; make a dataset with python -m rd_tf.prepare")
    required = {"format": int, "users": int, "items": int, "interactions": int, "fingerprint": str, "source": dict}
    manifest = storage.read_manifest(path / "manifest.json", required)
    if manifest["format"] != FORMAT:
        raise InputError(
            f"{path / 'manifest.json'} has format {manifest['format']}, not {FORMAT}; prepare the data again"
        )
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
    found = load_manifest(dataset)["fingerprint"]
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
    try:
        table = pq.read_table(path / "interactions.parquet", columns=list(_COLUMNS))
        arrays = [table[name].to_numpy() for name in _COLUMNS]
    except (OSError, pa.ArrowException, KeyError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path / 'interactions.parquet'} cannot be read ({first}); prepare the data again") from None
    interactions = Interactions(
        users=np.asarray(arrays[0], np.int32),
        items=np.asarray(arrays[1], np.int32),
        timestamps=np.asarray(arrays[2], np.int64),
        user_ids=_read_lines(path / "users.txt"),
        item_ids=_read_lines(path / "items.txt"),
    )
    if interactions.fingerprint() != manifest["fingerprint"]:
        raise InputError(f"{path} does not match the fingerprint in its manifest.json; prepare the data again")
    return interactions


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Writes raw ids, one a line."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); prepare the data again") from None
    # Not splitlines(): a raw id may hold U+2028 and friends.
    return text.split("\n")[:-1]
