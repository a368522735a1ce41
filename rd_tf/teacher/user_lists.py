"""Lists for users: what every user of a dataset might visit next, written as raw ids."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from rd_tf.data.interactions import Interactions
from rd_tf.data.readers.text import first_lines
from rd_tf.data.windows import SplitData
from rd_tf.evaluation.ranks import NOT_FINITE, FrozenScores, block_rows
from rd_tf.models.ranker import SequenceRanker
from rd_tf.runtime import Advance, blocks_at_once, compute_ahead
from rd_tf.storage import InputError, atomic_file
from rd_tf.teacher.saved_model import SavedModelLists
from rd_tf.teacher.scoring import best_items

# (users [n] int32) -> items [n, m] int32, best first, 0 for none, and scores [n, m] float32; None where there are none.
ListUsers = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclasses.dataclass(frozen=True)
class UserLists:
    """Lists for users, who may be asked for in blocks.

    Attributes:
        list_users: gives the lists of some users.
        rows: users of a block at most.
        threads: blocks that are listed at the same time.
        has_scores: whether there are scores.
    """

    list_users: ListUsers
    rows: int
    threads: int
    has_scores: bool


def ranker_lists(
    model: SequenceRanker, data: SplitData, k: int, is_candidate: np.ndarray, block_size: int = 1024
) -> UserLists:
    """The lists of a ranker: its best K items for a user who has just visited the last of their items.

    Args:
        model: the ranker.
        data: the dataset; none of a user's training items is in the list, unless its protocol keeps seen items.
        k: K.
        is_candidate: `[num_items + 1] bool`, the items that may be listed: those that the ranker was trained on.
        block_size: users a matrix product.

    Raises:
        InputError: there are fewer than K items to list, or a weight of an item is not finite.
    """
    if k > is_candidate.sum():
        raise InputError(f"--k={k} is larger than the {is_candidate.sum()} items that the model was trained on")
    items = data.seen
    scores = FrozenScores(model).freeze(is_candidate)

    def list_users(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scored = scores(users, items.last(users, model.sequence_length), data.histories(model, users))
        best, values = best_items(scored, data.kept_out(users), k)
        # A row with a NaN among its scores has no items.
        if np.isnan(scored[best[:, 0] == 0]).any():
            raise InputError(NOT_FINITE)
        return best, values

    return UserLists(list_users, block_rows(block_size, model.num_items + 1), blocks_at_once(), True)


def saved_model_user_lists(model: SavedModelLists, data: SplitData, k: int, block_size: int = 1024) -> UserLists:
    """The lists of a SavedModel, which is told of all training items of a user.

    Args:
        model: the signature.
        data: the dataset; none of a user's training items is in the list, unless its protocol keeps seen items.
        k: K.
        block_size: users a request.
    """
    seen, keeps_seen = data.seen, data.protocol.keeps_seen

    def list_users(users: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        own = seen.padded(users)
        items, scores = model.lists(users, seen.last(users, own.shape[1]), own[:, :0] if keeps_seen else own, k)
        # A signature that takes no items to exclude may have listed them.
        free = (items > 0) & (keeps_seen | ~seen.has(users, items))
        order = np.argsort(~free, axis=1, kind="stable")[:, :k]
        items = np.where(np.take_along_axis(free, order, 1), np.take_along_axis(items, order, 1), 0)
        return items, None if scores is None else np.take_along_axis(scores, order, 1)

    return UserLists(list_users, block_rows(block_size, data.num_items + 1), 1, model.has_scores)


def write_user_lists(
    path: str | os.PathLike[str],
    lists: UserLists,
    users: np.ndarray,
    interactions: Interactions,
    k: int,
    advance: Advance = lambda count: None,
    columns: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Writes lists, block by block: a row for every user and item, with rank and, where there are any, score.

    `rd_tf.teacher.lists.read_teacher_lists` reads what it writes.

    Args:
        path: .parquet or .csv; the file appears whole or not at all.
        lists: of the users.
        users: `[n] int32`, whose to write, in this order.
        interactions: the dataset.
        k: K.
        advance: told of users that are done.
        columns: names for `user_column` and `item_column`, user_id and item_id otherwise; beside them there are `rank`,
            from 1, and `score`.

    Returns:
        The number of rows, and of users with fewer than K items.

    Raises:
        InputError: another ending, or what listing raises.
    """
    named = {"user_column": "user_id", "item_column": "item_id", **(columns or {})}
    fields = [(named["user_column"], pa.string()), ("rank", pa.int32()), (named["item_column"], pa.string())]
    schema = pa.schema([*fields, *([("score", pa.float32())] if lists.has_scores else [])])
    user_ids, item_ids = pa.array(interactions.user_ids, pa.string()), pa.array(interactions.item_ids, pa.string())
    starts = range(0, len(users), lists.rows)
    blocks = [users[first : first + lists.rows] for first in starts]
    rows = short = 0
    with atomic_file(path) as temporary, _writer(temporary, schema) as writer:
        for block, (items, scores) in zip(
            blocks, compute_ahead(lists.list_users, blocks, lists.threads, lists.threads), strict=True
        ):
            owner, place = np.nonzero(items)
            # Short lists have their zeros at the end.
            arrays = [user_ids.take(pa.array(block[owner])), pa.array(place + 1, pa.int32())]
            arrays.append(item_ids.take(pa.array(items[owner, place] - 1)))
            if scores is not None:
                arrays.append(pa.array(scores[owner, place], pa.float32()))
            writer.write_table(pa.table(arrays, schema))
            rows, short = rows + len(owner), short + int(np.count_nonzero((items > 0).sum(1) < k))
            advance(len(block))
    return rows, short


def _writer(path: Path, schema: pa.Schema) -> AbstractContextManager[pq.ParquetWriter | pyarrow.csv.CSVWriter]:
    if path.suffix == ".parquet":
        return pq.ParquetWriter(path, schema)
    if path.suffix == ".csv":
        return pyarrow.csv.CSVWriter(path, schema)
    raise InputError(f"{path.name} ends neither in .parquet nor .csv; name such a file")


def read_user_file(path: str, user_ids: Sequence[str]) -> np.ndarray:
    """Reads users from a file of raw ids, one a line; a user who stands twice counts once, empty lines do not.

    Returns:
        `[users] int32`, in the order of the file.

    Raises:
        InputError: the file is missing, has no users, or one that the dataset does not have.
    """
    if not Path(path).is_file():
        raise InputError(f"--users={path} is no file; name one with a raw id a line")
    return np.array([*dict.fromkeys(_users_of(path, user_ids))], np.int32)


def _users_of(path: str, user_ids: Sequence[str]) -> Iterator[int]:
    numbers = {raw_id.encode("utf-8", "surrogateescape"): user for user, raw_id in enumerate(user_ids)}
    lines = 0
    for number, line in enumerate(first_lines(path), 1):
        if line and line not in numbers:
            shown = line.decode(errors="replace")
            raise InputError(f"--users: {path}, line {number}: the user {shown[:60]!r} is not in the dataset; mend it")
        if line:
            lines += 1
            yield numbers[line]
    if not lines:
        raise InputError(f"--users={path} names no user; write one raw id a line")
