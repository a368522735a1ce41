"""Splits, windows over histories, and each user's items."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from rd_tf.data.dataset import DatasetShard, load_dataset
from rd_tf.data.interactions import Interactions, distinct_keys, drop_duplicates, k_core, to_interactions, user_offsets
from rd_tf.data.synthetic import synthetic_interactions
from rd_tf.flag_definitions import Protocol
from rd_tf.storage import InputError

if TYPE_CHECKING:
    from rd_tf.models.ranker import SequenceRanker


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows to train on and rows to be ranked.

    Attributes:
        name: of a `Protocol`, whose part is "validation" (train on the first 70 %, hold out the next 10 %), "test"
            (train on 80 %, hold out 20 %), "rehearsal" (train on 64 %, hold out the next 16 %) or "all" (train on
            everything, hold out nothing: what goes to production); the shares are those of the rule "ratio".
        train: `[rows] bool` over the dataset's rows.
        held_out: `[rows] bool` over the dataset's rows.
        times: of the rule "time": the first and the last timestamp that are held out.
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    times: tuple[int, int] | None = None

    @property
    def protocol(self) -> Protocol:
        return Protocol.of(self.name)


def split_interactions(interactions: Interactions, name: str, times: tuple[int, int] | None = None) -> Split:
    """Splits histories by time; "test" trains on what "validation" trains on and holds out, together.

    "ratio" (Tang & Wang, WSDM 2018, section 4.1): with n items of a user, test = the last floor(0.2 n), validation =
    the floor(0.3 n) - floor(0.2 n) before them, train = the rest. "rehearsal" is what "test" would be of all but the
    test items: of the first m it holds out the last floor(0.2 m). So it asks for items as far ahead as the test items,
    where "validation" asks for the next few.

    "last" (leave-one-out): test = the last item of every user with two or more, validation = the last but one of every
    user with three or more; "rehearsal" is the same as "validation".

    "time": with n rows of all users in the order of their timestamps, test = those not before row floor(0.8 n),
    validation = those of the rest not before row floor(0.7 n), "rehearsal" those not before row floor(0.64 n). Rows of
    the same timestamp stay together, so shares may differ.

    Args:
        interactions: the dataset, or, where `times` are given, some of its users.
        name: of a `Protocol`.
        times: of the rule "time", as `Split.times` of the whole dataset; None to find them here.

    Raises:
        ValueError: an unknown name.
    """
    protocol = Protocol.of(name)
    if protocol.part == "all":
        return Split(name, np.ones(len(interactions), bool), np.zeros(len(interactions), bool))
    if protocol.by == "time":
        begin, end = times or _held_out_times(interactions.timestamps, protocol.part)
        train = interactions.timestamps < begin
        return Split(name, train, ~train & (interactions.timestamps <= end), (begin, end))
    counts = np.diff(user_offsets(interactions.users, interactions.num_users))
    if protocol.by == "last":
        test, held_back = np.minimum(counts // 2, 1), np.minimum(counts // 3, 1)
    else:
        # Integers: int(0.3 * 10) is 3, but 0.3 * n in floating point is 2.9999999999999996 for some n.
        test = counts * 2 // 10
        held_back = (counts - test) * 2 // 10 if protocol.part == "rehearsal" else counts * 3 // 10 - test
    lengths = np.stack([counts - test - held_back, held_back, test], axis=1)
    part = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(counts)), lengths.ravel())
    if protocol.part == "test":
        return Split(name, part < 2, part == 2)
    return Split(name, part == 0, part == 1)


def _held_out_times(timestamps: np.ndarray, part: str) -> tuple[int, int]:
    """The first and the last timestamp that are held out."""
    rows = len(timestamps)
    test = rows * 8 // 10
    first = {"test": test, "validation": rows * 7 // 10, "rehearsal": rows * 64 // 100}[part]
    ordered = np.partition(timestamps, [first, test])
    begin, end = int(ordered[first]), int(ordered[test])
    return begin, int(timestamps.max()) if part == "test" else max(end, begin + 1) - 1


_ROWS = 2**20


def user_blocks(users: np.ndarray, rows: int = _ROWS) -> Iterator[slice]:
    """Cuts user-sorted rows between users, so that what is computed of a block needs little memory.

    Args:
        users: `[rows] int32`, sorted.
        rows: of a block at least, the last one excepted; a user's rows are never cut.

    Yields:
        Slices that cover all rows in order.
    """
    begin = 0
    while begin < len(users):
        last = min(begin + rows, len(users)) - 1
        end = int(np.searchsorted(users, users[last], side="right"))
        yield slice(begin, end)
        begin = end


# Rows that are cut at once: tens of MB of temporaries.
_BLOCK = 2**18


def last_items(items: np.ndarray, starts: np.ndarray, counts: np.ndarray, length: int) -> np.ndarray:
    """The last items of some histories that lie in one array.

    Args:
        items: `[n]`, where history i is `items[starts[i] : starts[i] + counts[i]]`.
        starts: `[histories]`.
        counts: `[histories]`.
        length: how many of every history.

    Returns:
        `[histories, length] int32`, in order, padded with 0 on the left.
    """
    rows = np.zeros((len(starts), length), np.int32)
    for begin in range(0, len(starts), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        for column in range(length):
            place = counts[block] - (length - column)
            inside = place >= 0
            rows[block][inside, column] = items[(starts[block] + place)[inside]]
    return rows


@dataclasses.dataclass(frozen=True)
class Windows:
    """Every run of L + T consecutive items of every user, step 1, in the order (user, position).

    A user with fewer than L + T items has one window, padded with 0 on the left. With short windows there is also one,
    padded alike, for every run of T items before which fewer than L stand, one at least.

    Attributes:
        users: `[windows] int32`.
        positions: `[windows] int32`, where in the user's training history the window's last item stands (from 0).
            (user, position) names a window.
        sequences: `[windows, L] int32`, oldest first.
        targets: `[windows, T] int32`.
    """

    users: np.ndarray
    positions: np.ndarray
    sequences: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all windows."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.sequences.shape[1]},{self.targets.shape[1]}".encode())
        for array in (self.users, self.positions, self.sequences, self.targets):
            digest.update(np.ascontiguousarray(array, "<i4").data)
        return digest.hexdigest()


def make_windows(
    interactions: Interactions, train: np.ndarray, sequence_length: int, target_length: int = 1, short: bool = False
) -> Windows:
    """Cuts the training rows into windows.

    Args:
        interactions: the dataset.
        train: `[rows] bool`, the rows to train on.
        sequence_length: L, at least 1.
        target_length: T, at least 1.
        short: whether there are short windows, so that all but a user's first T items are the last of some window. The
            positions are those of windows of L = 1 then.

    Raises:
        ValueError: a length below 1.
    """
    if sequence_length < 1 or target_length < 1:
        raise ValueError(f"window lengths must be at least 1; received L={sequence_length}, T={target_length}")
    items, offsets = interactions.items[train], user_offsets(interactions.users[train], interactions.num_users)
    counts = np.diff(offsets)
    length = sequence_length + target_length
    shortest = (1 if short else sequence_length) + target_length
    per_user = np.where(counts >= shortest, counts - shortest + 1, np.minimum(counts, 1))
    users = np.repeat(np.arange(interactions.num_users, dtype=np.int32), per_user)
    # A window's number less this is the position of its last item.
    number_at_0 = np.cumsum(per_user) - per_user - np.minimum(shortest, counts) + 1
    positions = np.empty(len(users), np.int32)
    sequences = np.empty((len(users), sequence_length), np.int32)
    targets = np.empty((len(users), target_length), np.int32)
    for begin in range(0, len(users), _BLOCK):
        block = slice(begin, min(begin + _BLOCK, len(users)))
        positions[block] = np.arange(block.start, block.stop) - number_at_0[users[block]]
        rows = last_items(items, offsets[users[block]], positions[block] + 1, length)
        sequences[block], targets[block] = rows[:, :sequence_length], rows[:, sequence_length:]
    return Windows(users, positions, sequences, targets)


def last_sequences(interactions: Interactions, train: np.ndarray, sequence_length: int) -> np.ndarray:
    """The L most recent training items of every user, what a query after training starts from.

    Returns:
        `[users, L] int32`, oldest first, padded with 0 on the left.
    """
    items, offsets = interactions.items[train], user_offsets(interactions.users[train], interactions.num_users)
    return last_items(items, offsets[:-1], np.diff(offsets), sequence_length)


_CHUNK = 2**22


def windows_fingerprint(parts: Iterable[Windows], sequence_length: int, target_length: int) -> str:
    """Computes `Windows.fingerprint()` of the concatenation of windows that come one part after another.

    That is the SHA-256 of all users, then all positions, sequences and targets. All but the users wait in unnamed
    temporary files (where TMPDIR says), 4 (1 + L + T) bytes a window, until the last part was there.

    Args:
        parts: gone over once; their users are numbered in the whole dataset.
        sequence_length: L.
        target_length: T.
    """
    digest = hashlib.sha256(f"{sequence_length},{target_length}".encode())
    with contextlib.ExitStack() as files:
        waiting = [files.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        for windows in parts:
            digest.update(np.ascontiguousarray(windows.users, "<i4").data)
            for file, array in zip(waiting, (windows.positions, windows.sequences, windows.targets), strict=True):
                file.write(np.ascontiguousarray(array, "<i4").data)
            # Else this part would be in memory beside the next one.
            del windows, array
        for file in waiting:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def trained_items(items: np.ndarray, num_items: int) -> np.ndarray:
    """Which items have a training row, and so may be ranked: `[num_items + 1] bool`; never the padding.

    Args:
        items: `[rows] int32`, the items of the training rows.
        num_items: items of the catalogue.

    Raises:
        InputError: an item beyond `num_items`.
    """
    highest = items.max(initial=0)
    if highest > num_items:
        raise InputError(
            f"a user of the dataset has item {highest}, but the model knows {num_items} items; "
            "its manifest.json is damaged, so train it again"
        )
    is_trained = np.zeros(num_items + 1, bool)
    is_trained[items] = True
    return is_trained


class UserItems:
    """Training items of every user, in time order, as rows of different length.

    Args:
        users: `[rows] int32`, sorted.
        items: `[rows] int32`.
        num_users: number of users.

    Attributes:
        items: `[rows] int32`, as given.
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, num_users: int) -> None:
        self._offsets = user_offsets(users, num_users)
        # The last one is no item, for `padded`.
        self._items = np.append(items, np.int32(0)).astype(np.int32, copy=False)
        self.items = self._items[:-1]

    def part(self, first_user: int, num_users: int) -> "UserItems":
        """The items of some consecutive users, who are numbered from 0 there."""
        offsets = self._offsets[first_user : first_user + num_users + 1]
        users = np.repeat(np.arange(num_users, dtype=np.int32), np.diff(offsets))
        return UserItems(users, self.items[offsets[0] : offsets[-1]], num_users)

    @property
    def longest(self) -> int:
        return int(np.diff(self._offsets).max(initial=0))

    def padded(self, users: np.ndarray) -> np.ndarray:
        """All items of some users: `[len(users), longest among them] int32`, padded with 0 on the right."""
        counts = self._offsets[users + 1] - self._offsets[users]
        place = np.arange(max(1, int(counts.max(initial=0))))
        inside = place < counts[:, None]
        return self._items[np.where(inside, self._offsets[users][:, None] + place, -1)]

    @functools.cached_property
    def _pairs(self) -> np.ndarray:
        users = np.repeat(np.arange(len(self._offsets) - 1), np.diff(self._offsets))
        pairs = distinct_keys(users, self.items, int(self._items.max()) + 1)
        # Larger than any pair, so that a search finds something.
        return np.append(pairs, np.iinfo(np.int64).max)

    def has(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Which items are items of some users.

        Args:
            users: `[n]`.
            items: `[n, m]`, whole numbers from 0.

        Returns:
            `[n, m] bool`.
        """
        size = int(self._items.max()) + 1
        pairs = users[:, None].astype(np.int64) * size + items
        return (items < size) & (self._pairs[np.searchsorted(self._pairs, pairs)] == pairs)

    def last(self, users: np.ndarray, length: int) -> np.ndarray:
        """The last items of some users: `[len(users), length] int32`, oldest first, padded with 0 on the left."""
        starts = self._offsets[users]
        return last_items(self._items, starts, self._offsets[users + 1] - starts, length)

    def before(self, windows: Windows, rows: np.ndarray, length: int) -> np.ndarray:
        """The last items before the first target of some windows: `[len(rows), length] int32`, as `last`.

        Args:
            windows: cut from the same rows as these items.
            rows: `[rows]`, which windows.
            length: how many items.
        """
        counts = np.maximum(windows.positions[rows] + 1 - windows.targets.shape[1], 0)
        return last_items(self._items, self._offsets[windows.users[rows]], counts, length)

    def histories(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All items of some users, one user after another.

        Returns:
            items `[n] int32` and, for each, the place of its user in `users`, `[n] int32`.
        """
        return self._ranges(self._offsets[users], self._offsets[users + 1])

    def window_histories(self, windows: Windows, rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """What the users of some windows had visited, one window after another.

        Args:
            windows: cut from the same rows as these items.
            rows: `[rows]`, which windows.
            kind: "before", the items before the window's first target; or "all", all but the window's targets, so also
                those that the user visited later.

        Returns:
            items `[n] int32` and, for each, the place of its window in `rows`, `[n] int32`.

        Raises:
            ValueError: an unknown kind.
        """
        if kind not in ("before", "all"):
            raise ValueError(f"kind must be before or all; received {kind!r}")
        users = windows.users[rows]
        begin, end = self._offsets[users], self._offsets[users + 1]
        last = begin + windows.positions[rows]
        first = np.maximum(begin, last + 1 - windows.targets.shape[1])
        if kind == "before":
            return self._ranges(begin, first)
        starts, ends = np.stack([begin, last + 1], axis=1).ravel(), np.stack([first, end], axis=1).ravel()
        items, place = self._ranges(starts, ends)
        return items, place // 2

    def _ranges(self, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = ends - starts
        place = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        before = np.cumsum(counts) - counts
        return self._items[np.arange(len(place)) + (starts - before)[place]], place


@dataclasses.dataclass(frozen=True)
class ShardWindows:
    """Training windows and training items of consecutive users, who are numbered from 0 here.

    Attributes:
        first_user: the number of user 0 in the whole dataset.
        windows: those that `make_windows` cuts for these users in the whole dataset, in the same order.
        seen: the users' training items.
    """

    first_user: int
    windows: Windows
    seen: UserItems

    def of_the_dataset(self) -> Windows:
        """The windows with the users' numbers in the whole dataset."""
        return dataclasses.replace(self.windows, users=self.windows.users + self.first_user)


def cut_shard(
    shard: DatasetShard,
    split: str,
    sequence_length: int,
    target_length: int,
    short: bool = False,
    times: tuple[int, int] | None = None,
) -> ShardWindows:
    """Cuts a shard into windows; a user's split and windows depend on nobody else, but for `times`.

    Args:
        shard: of the dataset.
        split: name of a `Protocol`.
        sequence_length: L, at least 1.
        target_length: T, at least 1.
        short: as of `make_windows`.
        times: of the rule "time", as of `Split`.
    """
    # Windows depend on no raw id, but there is one for every user.
    user_ids = [""] * shard.num_users
    interactions = Interactions(shard.users - shard.first_user, shard.items, shard.timestamps, user_ids, [])
    data = SplitData(interactions, split_interactions(interactions, split, times))
    return ShardWindows(shard.first_user, data.windows(sequence_length, target_length, short), data.seen)


class SplitData:
    """A dataset and which of its rows to train on: what training, teaching, evaluating and exporting take as `data`.

    Args:
        interactions: the dataset.
        split: its rows to train on and to hold out.

    Attributes:
        name: of the split: "validation", "test" or "all", or another name of a `Protocol`.
        protocol: the split's.
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.
        users: `[rows] int32`, users of the training rows.
        items: `[rows] int32`, items of the training rows.
    """

    def __init__(self, interactions: Interactions, split: Split) -> None:
        self.interactions = interactions
        self.split = split
        self.name = split.name
        self.protocol = split.protocol
        self.num_users = interactions.num_users
        self.num_items = interactions.num_items
        self._windows: dict[tuple[int, int, bool], Windows] = {}

    # Not cached: training needs them at the start only, and has the items in `seen` besides.
    @property
    def users(self) -> np.ndarray:
        return self.interactions.users[self.split.train]

    @property
    def items(self) -> np.ndarray:
        return self.interactions.items[self.split.train]

    @functools.cached_property
    def is_candidate(self) -> np.ndarray:
        """`[num_items + 1] bool`: which items may be ranked, those with a training row."""
        return trained_items(self.items, self.num_items)

    @functools.cached_property
    def seen(self) -> UserItems:
        """Every user's training items."""
        return UserItems(self.users, self.items, self.num_users)

    def kept_out(self, users: np.ndarray) -> np.ndarray:
        """What may not be listed for some users: as `UserItems.padded`, and no column where seen items are kept."""
        return np.zeros((len(users), 0), np.int32) if self.protocol.keeps_seen else self.seen.padded(users)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the dataset."""
        return self.interactions.fingerprint()

    def histories(self, ranker: "SequenceRanker", users: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """What a ranker looks back on where it is asked what comes after some users' training items.

        Returns:
            As `UserItems.histories`; None for a ranker that has no history.
        """
        return self.seen.histories(users) if ranker.has_history else None

    def windows(self, sequence_length: int, target_length: int, short: bool = False) -> Windows:
        """The training windows, cut once for the same arguments; see `make_windows`."""
        key = sequence_length, target_length, short
        if key not in self._windows:
            self._windows[key] = make_windows(self.interactions, self.split.train, *key)
        return self._windows[key]

    def shard(
        self, first_user: int, num_users: int, sequence_length: int, target_length: int, short: bool = False
    ) -> ShardWindows:
        """What `cut_shard` cuts for some consecutive users, out of the windows of all."""
        windows = self.windows(sequence_length, target_length, short)
        if num_users == self.num_users:
            return ShardWindows(0, windows, self.seen)

        bounds = np.array([first_user, first_user + num_users], windows.users.dtype)
        own = slice(*np.searchsorted(windows.users, bounds))
        return ShardWindows(
            first_user,
            Windows(
                windows.users[own] - np.int32(first_user),
                windows.positions[own],
                windows.sequences[own],
                windows.targets[own],
            ),
            self.seen.part(first_user, num_users),
        )


class Dataset:
    """A dataset directory that was read.

    Args:
        interactions: its rows and raw ids.
    """

    def __init__(self, interactions: Interactions) -> None:
        self.interactions = interactions

    def split(self, name: str, by: str = "ratio", seen_items: str = "exclude") -> SplitData:
        """Splits histories by time; see `split_interactions`.

        Args:
            name: "validation", "test", "rehearsal" or "all"; or the name of a `Protocol`, for all three.
            by: "ratio", "last" or "time".
            seen_items: "exclude" or "keep": whether users may be listed items that they have in training.

        Raises:
            ValueError: an unknown value.
        """
        name = name if "/" in name else Protocol(name, by, seen_items).name
        return SplitData(self.interactions, split_interactions(self.interactions, name))


def open_dataset(directory: str | os.PathLike[str]) -> Dataset:
    """Reads a dataset directory, as `python -m rd_tf.prepare` writes it.

    Raises:
        InputError: it is missing, unfinished or damaged.
    """
    return Dataset(load_dataset(directory))


def synthetic_dataset(
    num_users: int = 4000, num_items: int = 4000, mean_visits: float = 60.0, seed: int = 0, core: int = 5
) -> Dataset:
    """The built-in world as a dataset: of a user's visits to one place the last is kept, and then the k-core.

    Args:
        num_users: users before the k-core.
        num_items: places, at most.
        mean_visits: mean visits of a user, repeats included.
        seed: the same seed gives the same world.
        core: k of the k-core: users with fewer places and places with fewer users are left out.

    Raises:
        ValueError: a size out of range.
    """
    world = synthetic_interactions(num_users, num_items, mean_visits, seed)
    kept = drop_duplicates(world.users, world.items, world.timestamps, "keep_last")
    users, items, timestamps = world.users[kept], world.items[kept] - 1, world.timestamps[kept]
    keep = k_core(users, items, core, core).keep
    return Dataset(to_interactions(users[keep], items[keep], timestamps[keep], world.user_ids, world.item_ids))
