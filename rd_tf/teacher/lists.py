"""Lists that another system made, of raw ids and of any length, become the teacher's K items of every window."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rd_tf.data.readers.check_ins import Reading, find_layout
from rd_tf.data.readers.checked_rows import DECIMAL, FAULTS, encode_ids
from rd_tf.data.readers.files import RawTable, read_parquet_table, shorten
from rd_tf.data.readers.text import read_text_table
from rd_tf.data.teacher_lists import (
    CacheKey,
    TeacherCache,
    check_k,
    check_mask,
    empty_lists,
    half_precision,
    lists_manifest,
    most_masked,
)
from rd_tf.data.windows import SplitData, Windows
from rd_tf.storage import InputError, atomic_file

UNKNOWN, INCOMPLETE = ("refuse", "skip"), ("refuse", "pad")
# (windows [n]) -> their lists, items [n, m] int32 with 0 for none and scores [n, m] float32; None where there are none.
ReadLists = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
# Cells of an array that is made at once: tens of MB.
CELLS = 2**22


def check_choices(mask: str, unknown: str, incomplete: str) -> None:
    """Checks words that say how lists are to be fitted.

    Raises:
        ValueError: one of them is unknown.
    """
    check_mask(mask)
    for name, value, choices in (("unknown", unknown, UNKNOWN), ("incomplete", incomplete, INCOMPLETE)):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; received {value!r}")


class ListFitter:
    """Fits lists of any length to windows, and counts what it does.

    Args:
        data: the dataset and its split.
        windows: its windows.
        mask: "target", "seen" or "none".

    Attributes:
        counts: "items kept out by the mask", "windows without a list" (of any item that may be taught), "windows with
            too few items".
        first_short: number of the first window with fewer than K items, and how many it has; None if there is none.
    """

    def __init__(self, data: SplitData, windows: Windows, mask: str) -> None:
        self.data, self.windows, self.mask = data, windows, mask
        popularity = np.bincount(data.items, minlength=data.num_items + 1)
        popularity[0] = 0
        # Of equally popular items the one with the lower number.
        self._popular = np.argsort(-popularity, kind="stable")[: int(data.is_candidate.sum())].astype(np.int32)
        self.counts = {"items kept out by the mask": 0, "windows without a list": 0, "windows with too few items": 0}
        self.first_short: tuple[int, int] | None = None

    def fit(
        self, rows: np.ndarray, listed: np.ndarray, scores: np.ndarray | None, k: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Takes the first K items that the mask lets through.

        Args:
            rows: `[n]`, which windows.
            listed: `[n, m] int32`, their lists, all items with a training row and none twice; 0 = none, anywhere.
            scores: `[n, m] float32`, or None.
            k: K.

        Returns:
            items `[n, K] int32` and scores `[n, K] float32`, 0 at the end of too short lists; and `[n] int64`, how many
            items of each list the mask lets through, which may be more than K.
        """
        is_free = (listed > 0) & self._is_free(rows, listed)
        self.counts["items kept out by the mask"] += int(np.count_nonzero(listed) - np.count_nonzero(is_free))
        left = is_free.sum(1)
        order = np.argsort(~is_free, axis=1, kind="stable")[:, :k]
        items = np.zeros((len(rows), k), np.int32)
        values = np.zeros((len(rows), k), np.float32)
        width = order.shape[1]
        items[:, :width] = np.take_along_axis(listed, order, 1)
        if scores is not None:
            values[:, :width] = np.take_along_axis(scores, order, 1)
        is_item = np.arange(k) < left[:, None]
        return np.where(is_item, items, 0), np.where(is_item, values, 0), left

    def note(self, rows: np.ndarray, left: np.ndarray, k: int) -> np.ndarray:
        """Counts the windows with too few items, and gives their places in `rows`."""
        short = np.flatnonzero(left < k)
        if len(short) and self.first_short is None:
            self.first_short = int(rows[short[0]]), int(left[short[0]])
        missing = int(np.count_nonzero(left == 0))
        self.counts["windows without a list"] += missing
        self.counts["windows with too few items"] += len(short) - missing
        return short

    def pad(self, rows: np.ndarray, items: np.ndarray, scores: np.ndarray, left: np.ndarray) -> None:
        """Fills lists up with the most popular items that are neither in the list nor kept out by the mask.

        Args:
            rows: `[n]`, which windows.
            items: `[n, K] int32`, 0 at the end; it is changed.
            scores: `[n, K] float32`; it is changed. Padding has the score of the item before, 0 where there is none.
            left: `[n]`, how many items each list has.
        """
        k = items.shape[1]
        masked = most_masked(self.mask, self.windows.targets.shape[1], self.data.seen.longest)
        popular = self._popular[: 2 * k + masked]
        size = max(1, CELLS // (len(popular) * k))
        for first in range(0, len(rows), size):
            part = slice(first, first + size)
            own, count = items[part], np.minimum(left[part], k)
            more = np.broadcast_to(popular, (len(own), len(popular)))
            is_new = self._is_free(rows[part], more) & ~(more[:, :, None] == own[:, None, :]).any(2)
            joined = np.concatenate([own, more], 1)
            usable = np.concatenate([np.arange(k) < count[:, None], is_new], 1)
            order = np.argsort(~usable, axis=1, kind="stable")[:, :k]
            last = np.take_along_axis(scores[part], np.maximum(count - 1, 0)[:, None], 1)
            items[part] = np.take_along_axis(joined, order, 1)
            scores[part] = np.where(np.arange(k) < count[:, None], scores[part], last)

    def _is_free(self, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """`[n, m] bool`: which items the mask does not keep out of the windows' lists."""
        if self.mask == "target":
            return ~(items[:, :, None] == self.windows.targets[rows][:, None, :]).any(2)
        if self.mask == "seen":
            return ~self.data.seen.has(self.windows.users[rows], items)
        return np.ones(items.shape, bool)


def fitted_lists(
    source: str,
    read: ReadLists,
    fitter: ListFitter,
    k: int,
    key: CacheKey,
    incomplete: str,
    blocks: list[np.ndarray],
    counts: dict[str, int],
    has_scores: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> TeacherCache:
    """Makes lists of exactly K items of lists of any length.

    Args:
        source: what gave the lists, for messages.
        read: gives the lists of some windows.
        fitter: of the windows; it has not been used for K items before.
        k: K.
        key: what the lists belong to.
        incomplete: "refuse" or "pad".
        blocks: the windows in order, some at a time.
        counts: what the manifest should tell beside the fitter's counts; `read` may go on counting.
        has_scores: whether `read` gives scores.
        advance: told of windows that are done.

    Raises:
        InputError: a window has fewer than K items, which are not to be padded or cannot be.
    """
    data, windows = fitter.data, fitter.windows
    if incomplete == "pad":
        check_k(k, fitter.mask, int(data.is_candidate.sum()), windows.targets.shape[1], data.seen.longest)
    fitter.counts = dict.fromkeys(fitter.counts, 0)
    items, scores = empty_lists(len(windows), k)
    for rows in blocks:
        block_items, block_scores, left = fitter.fit(rows, *read(rows), k)
        short = fitter.note(rows, left, k)
        if len(short) and incomplete == "pad":
            padded = block_items[short], block_scores[short]
            fitter.pad(rows[short], *padded, left[short])
            block_items[short], block_scores[short] = padded
        if not has_scores:
            block_scores[:] = -np.arange(1, k + 1)
        items[rows], scores[rows] = block_items, half_precision(block_scores)
        advance(len(rows))
    if fitter.first_short and incomplete == "refuse":
        raise InputError(_too_short(source, fitter, k))
    described = {"source": source, "incomplete": incomplete, "counts": {**counts, **fitter.counts}}
    manifest = lists_manifest(key, len(windows), k)
    return TeacherCache(items, scores, {**manifest, "scores": "teacher" if has_scores else "ranks", "lists": described})


def _too_short(source: str, fitter: ListFitter, k: int) -> str:
    assert fitter.first_short is not None
    (row, left), counts, windows = fitter.first_short, fitter.counts, fitter.windows
    user = fitter.data.interactions.user_ids[windows.users[row]]
    return (
        f"{source}: of {len(windows):,} windows {counts['windows without a list']:,} have no list and "
        f"{counts['windows with too few items']:,} fewer than --k={k} items (--mask={fitter.mask} keeps "
        f"{counts['items kept out by the mask']:,} out), first that of user {shorten(user)} at position "
        f"{windows.positions[row]} with {left}; give longer lists or a smaller --k, or pass --incomplete=pad"
    )


def counts_line(lists: TeacherCache) -> str:
    """What was read, left out and padded, in one line."""
    described: dict[str, Any] = lists.manifest["lists"]
    counted = ", ".join(f"{count:,} {name}" for name, count in described["counts"].items())
    return f"{described['source']}: {counted}"


def read_teacher_lists(
    path: str | os.PathLike[str],
    data: SplitData,
    k: int | None = None,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    rank_column: str | None = None,
    score_column: str | None = None,
    position_column: str | None = None,
    sequence_length: int = 5,
    target_length: int = 1,
    mask: str = "target",
    unknown: str = "refuse",
    incomplete: str = "refuse",
    short_windows: bool = False,
) -> TeacherCache:
    """Reads lists of any system from a file with a row for every user (or window) and item, as raw ids.

    A list is a user's, and then every window of the user has it, or, with `position_column`, a window's:
    (user, position) names a window, and `write_windows` tells which there are. Left out of a list are items that the
    mask keeps out, items without a training row, and an item's second place in the same list.

    Args:
        path: .csv or .tsv (plain or .gz) or .parquet.
        data: the dataset and its split.
        k: K; None for the length of the shortest list that is left.
        user_column: column with the raw id of the user.
        item_column: column with the raw id of the item.
        rank_column: column with a number that rises along a list; without it the score falls along a list, and
            without either the rows stand in the order of the list.
        score_column: column with the teacher's score; without it the lists' scores are -1, -2, ..., -K, and their
            `has_scores` is false.
        position_column: column with the window's position; None for lists of users.
        sequence_length: L of the windows.
        target_length: T of the windows.
        mask: what is kept out of a window's list: "target", "seen" or "none", as in `teacher_lists`.
        unknown: what becomes of rows whose user, item or position the dataset does not have: "refuse" or "skip".
        incomplete: what becomes of windows with fewer than K items: "refuse", or "pad" with the items that have most
            training rows, are not in the list and not kept out by the mask. Their score is that of the list's last
            item, or 0 where nothing else is in it.
        short_windows: whether there are windows of fewer than L items; see `rd_tf.data.windows.make_windows`.

    Returns:
        The lists, in memory or, from 256 MiB on, in a temporary memory map. `manifest["lists"]` counts what was read,
        left out and padded.

    Raises:
        InputError: the file or a row of it cannot be used, or what `unknown` and `incomplete` refuse.
        ValueError: an unknown mask or choice, or a length below 1.
    """
    columns = {
        "user_column": user_column,
        "item_column": item_column,
        "rank_column": rank_column,
        "score_column": score_column,
        "position_column": position_column,
    }
    check_choices(mask, unknown, incomplete)
    windows = data.windows(sequence_length, target_length, short_windows)
    lists = read_list_file(path, data, windows, {flag: name for flag, name in columns.items() if name}, unknown)
    return lists.of_windows(k, mask, incomplete)


@dataclasses.dataclass(frozen=True)
class ListFile:
    """The lists of a file, in numbers; every user or every window owns one.

    Attributes:
        path: of the file, for messages.
        data: the dataset and its split.
        windows: its windows.
        owner: `[windows]`, the window's user, or the window itself.
        offsets: `[owners + 1] int64`: the list of owner i is rows offsets[i] .. offsets[i + 1] - 1 of what follows.
        items: `[rows + 1] int32`, best first, none twice in a list, and a 0.
        scores: `[rows + 1] float32`, the teacher's; None where there are none.
        counts: what was read and left out, by name.
    """

    path: str
    data: SplitData
    windows: Windows
    owner: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    scores: np.ndarray | None
    counts: dict[str, int]

    def fingerprint(self, incomplete: str) -> str:
        """SHA-256 (hex) of the lists and of how incomplete ones are dealt with: what stands for the teacher's weights.

        Args:
            incomplete: "refuse" or "pad".
        """
        digest = hashlib.sha256(f"{incomplete},{len(self.offsets)},{self.scores is not None}".encode())
        for array, dtype in ((self.offsets, "<i8"), (self.items, "<i4"), (self.scores, "<f4")):
            if array is not None:
                digest.update(np.ascontiguousarray(array, dtype).data)
        return digest.hexdigest()

    def key(self, mask: str, incomplete: str) -> CacheKey:
        """The key of a cache of these lists; arguments as of `read_teacher_lists`."""
        data = self.data
        return CacheKey.of(data.fingerprint, data.name, self.windows, self.fingerprint(incomplete), mask)

    def of_windows(self, k: int | None, mask: str, incomplete: str) -> TeacherCache:
        """The lists of all windows; arguments and errors as of `read_teacher_lists`."""
        fitter = ListFitter(self.data, self.windows, mask)
        if k is None:
            left = np.concatenate([fitter.fit(rows, *self._read(rows), 1)[2] for rows in self._blocks(1)])
            has_list = left > 0 if incomplete == "pad" else np.ones(len(left), bool)
            k = max(1, int(left[has_list].min(initial=np.iinfo(np.int32).max))) if has_list.any() else 1
        return fitted_lists(
            self.path,
            self._read,
            fitter,
            k,
            self.key(mask, incomplete),
            incomplete,
            self._blocks(k),
            self.counts,
            self.scores is not None,
        )

    def _blocks(self, k: int) -> list[np.ndarray]:
        widest = max(k, self.windows.targets.shape[1], int(np.diff(self.offsets).max(initial=0)))
        size, windows = max(1, CELLS // widest), len(self.windows)
        return [np.arange(first, min(first + size, windows)) for first in range(0, windows, size)]

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        begins, ends = self.offsets[self.owner[rows]], self.offsets[self.owner[rows] + 1]
        place = np.arange(int((ends - begins).max(initial=0)))
        # The last entry is no item.
        cells = np.where(begins[:, None] + place < ends[:, None], begins[:, None] + place, -1)
        return self.items[cells], None if self.scores is None else self.scores[cells]


def read_list_file(
    path: str | os.PathLike[str], data: SplitData, windows: Windows, columns: dict[str, str], unknown: str
) -> ListFile:
    """Reads lists of raw ids as numbers.

    Args:
        path: .csv or .tsv (plain or .gz) or .parquet.
        data: the dataset and its split.
        windows: its windows.
        columns: from the flags `user_column` and `item_column` and any of `rank_column`, `score_column` and
            `position_column` to column names.
        unknown: "refuse" or "skip", what becomes of rows whose user, item or position the dataset does not have.

    Raises:
        InputError: the file or a row cannot be used, or no row is left.
    """
    path = os.fspath(path)
    table = _read_table(path, columns)
    rows = _Rows(path, table, data, columns)
    owner, of_windows = rows.users, rows.positions is not None
    if rows.positions is not None:
        owner = _window_numbers(windows, rows.users, rows.positions)
    is_known = (owner >= 0) & (rows.items > 0)
    counts = rows.counts(owner)
    if unknown == "refuse" and not is_known.all():
        raise InputError(rows.unknown(int(np.argmin(is_known)), counts, data.name, windows))
    if not is_known.any():
        raise InputError(f"{path}: no row names a user and an item of the dataset; name the lists of this dataset")
    is_trained = is_known & data.is_candidate[rows.items]
    counts["rows of items without a training row"] = int(np.count_nonzero(is_known & ~is_trained))
    chosen = np.flatnonzero(is_trained)
    order = rows.order()
    chosen = chosen[np.lexsort((order[chosen], owner[chosen]))]
    # Of an item that stands twice in a list the first place counts.
    pairs = owner[chosen].astype(np.int64) * (data.num_items + 1) + rows.items[chosen]
    first = np.sort(np.unique(pairs, return_index=True)[1])
    counts["repeated rows"] = len(chosen) - len(first)
    chosen = chosen[first]
    has_none = np.zeros(data.num_users, bool)
    has_none[windows.users] = True
    has_none[rows.users[chosen]] = False
    counts["users without a list"] = int(np.count_nonzero(has_none))
    owner = owner[chosen]
    if rows.scores is not None and rows.ranks is not None:
        rows.check_falling(chosen, owner)
    num_owners = len(windows) if of_windows else data.num_users
    scores = None if rows.scores is None else np.append(rows.scores[chosen], 0).astype(np.float32)
    return ListFile(
        path,
        data,
        windows,
        np.arange(len(windows)) if of_windows else windows.users,
        np.searchsorted(owner, np.arange(num_owners + 1)),
        np.append(rows.items[chosen], 0).astype(np.int32),
        scores,
        counts,
    )


def _read_table(path: str, columns: dict[str, str]) -> RawTable:
    if not Path(path).is_file():
        what = "is a directory, not a file" if Path(path).is_dir() else "does not exist"
        raise InputError(f"--lists={path} {what}; name a .csv, .tsv or .parquet file")
    ending = Path(path.lower().removesuffix(".gz")).suffix
    if ending not in (".csv", ".tsv", ".parquet"):
        raise InputError(f"--lists={path} ends neither in .csv, .tsv nor .parquet; name such a file")
    if len(set(columns.values())) < len(columns):
        named = ", ".join(f"--{flag}={name}" for flag, name in columns.items())
        raise InputError(f"{named}: every one of these needs a column of its own")
    if ending == ".parquet":
        return read_parquet_table(path, columns)
    return read_text_table(path, find_layout(path, ending[1:], columns, Reading()))


class _Rows:
    """The rows of a file as numbers.

    Attributes:
        users: `[rows] int64`, -1 for a user that the dataset does not have.
        items: `[rows] int64`, 0 for an item that it does not have.
        ranks: `[rows] float64` or None.
        scores: `[rows] float64` or None.
        positions: `[rows] int64` or None.
    """

    def __init__(self, path: str, table: RawTable, data: SplitData, columns: dict[str, str]) -> None:
        self._path, self._table = path, table
        if table.misfits:
            raise self._trouble(None, "a line has another number of fields")
        interactions = data.interactions
        users = {raw_id: user for user, raw_id in enumerate(interactions.user_ids)}
        items = {raw_id: item for item, raw_id in enumerate(interactions.item_ids, 1)}
        self.users, self._unknown_users = self._numbers_of("user", table.users, columns["user_column"], users, -1)
        self.items, self._unknown_items = self._numbers_of("item", table.items, columns["item_column"], items, 0)
        values = {flag: self._values(flag.split("_")[0], column) for flag, column in table.others.items()}
        self.ranks, self.scores = values.get("rank_column"), values.get("score_column")
        positions = values.get("position_column")
        if positions is not None:
            is_whole = (positions >= 0) & (positions == np.floor(positions)) & (positions < 2**31)
            self._check(is_whole, table.others["position_column"], "position", "a whole number from 0")
        self.positions = None if positions is None else positions.astype(np.int64)

    def order(self) -> np.ndarray:
        """`[rows]`: what rises along a list; equal values keep the order of the rows."""
        if self.ranks is not None:
            return self.ranks
        return np.zeros(len(self.users)) if self.scores is None else -self.scores

    def counts(self, owner: np.ndarray) -> dict[str, int]:
        """What the file has and the dataset does not; `owner` is -1 where a row belongs to no user or no window."""
        counts = {"rows": len(self.users), "unknown users": self._unknown_users, "unknown items": self._unknown_items}
        if self.positions is not None:
            counts["rows of no window"] = int(np.count_nonzero((self.users >= 0) & (owner < 0)))
        return counts

    def unknown(self, row: int, counts: dict[str, int], split: str, windows: Windows) -> str:
        """What to say of a row whose user, item or position the dataset does not have."""
        if self.users[row] < 0:
            what = f"the user {shorten(self._table.users[row].as_py())} is not in the dataset"
        elif self.items[row] == 0:
            what = f"the item {shorten(self._table.items[row].as_py())} is not in the dataset"
        else:
            assert self.positions is not None
            lengths = f"L={windows.sequences.shape[1]} and T={windows.targets.shape[1]}"
            what = f"the user has no window at position {self.positions[row]} in the split {split!r} with {lengths}"
        counted = ", ".join(f"{count:,} {name}" for name, count in counts.items() if name != "rows" and count)
        return (
            f"{self._path}, {self._table.locate(row)[0]}: {what} (in the file {counted}); "
            "give lists of this dataset, or leave such rows out by --unknown=skip"
        )

    def check_falling(self, chosen: np.ndarray, owner: np.ndarray) -> None:
        """Checks that the scores do not rise along a list.

        Args:
            chosen: rows, list after list.
            owner: whose they are.
        """
        assert self.scores is not None
        rises = (np.diff(self.scores[chosen]) > 0) & (np.diff(owner) == 0)
        if rises.any():
            row = int(chosen[np.argmax(rises) + 1])
            raise self._trouble(row, "the score is higher than that of the rank before; give one of the two columns")

    def _numbers_of(
        self, name: str, column: pa.ChunkedArray, column_name: str, numbers: dict[str, int], none: int
    ) -> tuple[np.ndarray, int]:
        """The numbers of raw ids, and how many ids have none."""
        ids = encode_ids(column, f"{self._path}: the {name} column {column_name}")
        if ids.faults.any():
            row = int(np.argmax(ids.faults > 0))
            raise self._trouble(row, f"the {name} id {shorten(column[row].as_py())} is {FAULTS[ids.faults[row]]}")
        found = np.array([numbers.get(value, none) for value in ids.values] + [none], np.int64)
        in_use = np.zeros(len(found), bool)
        in_use[ids.codes] = True
        return found[ids.codes], int(np.count_nonzero(found[in_use] == none))

    def _values(self, name: str, column: pa.ChunkedArray) -> np.ndarray:
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            values = column.cast(pa.float64(), safe=False).to_numpy()
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            is_number = pc.match_substring_regex(column.fill_null(b""), DECIMAL).to_numpy()
            text = column.filter(pa.array(is_number)).to_pylist()
            values = np.full(len(column), np.nan)
            values[is_number] = np.array([float(number) for number in text])
        else:
            raise InputError(f"{self._path}: the {name} column is of type {kind}; store numbers")
        self._check(np.isfinite(values), column, name, "a finite number")
        return values

    def _check(self, good: np.ndarray, column: pa.ChunkedArray, name: str, wanted: str) -> None:
        if not good.all():
            row = int(np.argmin(good))
            raise self._trouble(row, f"the {name} {shorten(column[row].as_py())} is not {wanted}")

    def _trouble(self, row: int | None, what: str) -> InputError:
        place, misfit = self._table.locate(row)
        return InputError(f"{self._path}, {place}: {misfit or what}; mend it")


def _window_numbers(windows: Windows, users: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`[rows] int64`: the windows that users and positions name; -1 for none."""
    width = max(int(windows.positions.max(initial=0)), int(positions.max(initial=0))) + 1
    keys, wanted = windows.users.astype(np.int64) * width + windows.positions, users * width + positions
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((users >= 0) & (keys[found] == wanted), found, -1)


def write_windows(
    path: str | os.PathLike[str],
    data: SplitData,
    sequence_length: int = 5,
    target_length: int = 1,
    short_windows: bool = False,
) -> int:
    """Writes the windows that lists may be made for, as Parquet: `user_id`, `position`, `sequence` and `targets`.

    Ids are raw ids; `sequence` is the window's items, oldest first, and `targets` those that follow, both without
    padding. `user_id` and `position` name the window in a file of lists.

    Args:
        path: the file, which appears whole or not at all.
        data: the dataset and its split.
        sequence_length: L.
        target_length: T.
        short_windows: whether there are windows of fewer than L items; see `rd_tf.data.windows.make_windows`.

    Returns:
        How many windows there are.
    """
    windows, interactions = data.windows(sequence_length, target_length, short_windows), data.interactions
    user_ids, item_ids = pa.array(interactions.user_ids, pa.string()), pa.array(interactions.item_ids, pa.string())
    lists = pa.list_(pa.string())
    schema = pa.schema([("user_id", pa.string()), ("position", pa.int32()), ("sequence", lists), ("targets", lists)])
    size = max(1, CELLS // (sequence_length + target_length))

    def raw_lists(items: np.ndarray) -> pa.ListArray:
        is_item = items > 0
        offsets = np.concatenate([[0], np.cumsum(is_item.sum(1))]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, item_ids.take(pa.array(items[is_item] - 1)))

    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for first in range(0, len(windows), size):
            part = slice(first, first + size)
            users, positions = user_ids.take(pa.array(windows.users[part])), pa.array(windows.positions[part])
            columns = [users, positions, raw_lists(windows.sequences[part]), raw_lists(windows.targets[part])]
            writer.write_table(pa.table(columns, schema))
    return len(windows)
