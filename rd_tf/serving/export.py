"""Publishes a ranker as the next version of a served model."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from rd_tf import storage
from rd_tf.data.dataset_directory import write_lines
from rd_tf.errors import InputError
from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.agreement import check_agreement, sample_request
from rd_tf.serving.export_name import check_export_name
from rd_tf.serving.signatures import SIGNATURE, serving_module
from rd_tf.serving.warmup import write_warmup

USERS_FILE, ITEMS_FILE = "users.txt", "items.txt"


def export_ranker(
    model: SequenceRanker,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    directory: str | os.PathLike[str],
    k: int,
    exclude_recent: bool = True,
) -> Path:
    """Writes `<directory>/<next version>` for tensorflow_model_server, whole and checked or not at all.

    The version is loaded and run by TensorFlow's C++ loader, as the server does, and compared with the model before it
    appears under its number. Versions that exist are left as they are.

    Args:
        model: the trained ranker.
        user_ids: raw id of every user, `user_ids[user]`.
        item_ids: raw id of every item, `item_ids[item - 1]`.
        directory: the served model's directory; its last part is the model's name.
        k: items in a list.
        exclude_recent: whether a request's recent items are kept out of its list.

    Returns:
        The version's directory.

    Raises:
        InputError: k does not fit the catalogue, the ids do not fit the model, or the directory cannot be written.
        RuntimeError: the export does not answer as the model does.
    """
    directory = Path(directory)
    check_export_name(directory.name)
    if not 1 <= k <= model.num_items:
        raise InputError(f"--export_k={k} is not between 1 and the {model.num_items} items of the catalogue")
    _check_ids("users", user_ids, model.num_users)
    _check_ids("items", item_ids, model.num_items)
    with _writing(directory), storage.directory_lock(directory):
        version = directory / str(1 + max(_versions(directory), default=0))
        with storage.atomic_directory(version) as temporary, tempfile.TemporaryDirectory() as assets:
            users_file, items_file = Path(assets) / USERS_FILE, Path(assets) / ITEMS_FILE
            write_lines(users_file, user_ids)
            write_lines(items_file, item_ids)
            module = serving_module(model, users_file, items_file, k, exclude_recent)
            tf.saved_model.save(module, str(temporary), signatures={SIGNATURE: module.serving_default})
            write_warmup(temporary, directory.name, [sample_request(model, user_ids, item_ids)])
            check_agreement(temporary, model, user_ids, item_ids, k, exclude_recent)
    return version


def _check_ids(kind: str, ids: Sequence[str], expected: int) -> None:
    if len(ids) != expected:
        raise InputError(f"{len(ids)} ids of {kind} do not fit a model of {expected} {kind}; give its own dataset")
    bad = next((name for name in ids if not name or "\n" in name or "\r" in name), None)
    if bad is not None:
        raise InputError(f"{bad!r} among the ids of {kind} is empty or holds a line break; prepare the data again")
    if len(set(ids)) != len(ids):
        raise InputError(f"an id stands twice among the ids of {kind}; prepare the data again")


def _versions(directory: Path) -> list[int]:
    return [int(entry.name) for entry in directory.iterdir() if entry.name.isascii() and entry.name.isdigit()]


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{directory} cannot be written ({error.strerror}); name another --export_dir or --export_name"
        ) from error
