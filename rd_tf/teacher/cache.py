"""The lists of a trained ranker: of all windows in memory, or as a cache on disk, shard by shard."""

import contextlib
import dataclasses
import errno
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rd_tf import run_directory
from rd_tf.data.dataset import DatasetShard, check_same_dataset, entries_of, load_manifest, load_shard
from rd_tf.data.teacher_lists import (
    AGAIN,
    CacheKey,
    Described,
    OpenFile,
    TeacherCache,
    cache_manifest,
    check_k,
    check_mask,
    empty_lists,
    files_in,
    half_precision,
    is_teacher_cache,
    lists_manifest,
    load_teacher_cache,
    open_lists,
    save_teacher_cache,
)
from rd_tf.data.windows import (
    ShardWindows,
    SplitData,
    Windows,
    cut_shard,
    open_dataset,
    trained_items,
    windows_fingerprint,
)
from rd_tf.flag_definitions import Protocol, protocol_of
from rd_tf.runtime import Advance, progress_bar
from rd_tf.storage import InputError, atomic_directory, directory_lock, write_json

if TYPE_CHECKING:
    from rd_tf.models.ranker import SequenceRanker


def teacher_lists(
    teacher: "SequenceRanker",
    data: SplitData,
    k: int = 10,
    *,
    mask: str = "target",
    target_length: int = 1,
    block_size: int = 1024,
    short_windows: bool | None = None,
) -> TeacherCache:
    """Lists a ranker's best K items, with their scores, for every training window.

    The windows have the teacher's L; a student learns from the lists on windows of the same L and T, with short
    ones or without.

    Args:
        teacher: the trained ranker, of these users and items.
        data: the dataset and its split.
        k: K.
        mask: what is kept out of a list: "target", the window's own targets (the paper); "seen", all training items of
            the user; "none", nothing. Items without a training row are in no list.
        target_length: T.
        block_size: windows a matrix product.
        short_windows: whether there are windows of fewer than L items; None: if the teacher asks for them.

    Returns:
        The lists, in memory or, from 256 MiB on, in a temporary memory map.

    Raises:
        InputError: fewer than K items would remain for some window, or the teacher's scores are not finite.
        ValueError: the teacher is of other users or items, or the mask is unknown.
    """
    # TensorFlow is imported where a ranker is at work: Beam's command and most of its steps have none.
    from rd_tf.models.registry import weights_fingerprint
    from rd_tf.teacher.scoring import TopK

    check_mask(mask)
    if (teacher.num_users, teacher.num_items) != (data.num_users, data.num_items):
        raise ValueError(
            f"the teacher must have the {data.num_users} users and {data.num_items} items of the data; "
            f"received {teacher.num_users} and {teacher.num_items}"
        )
    short = teacher.short_windows if short_windows is None else short_windows
    windows = data.windows(teacher.sequence_length, target_length, short)
    top_k = TopK(teacher, windows, data.seen, k, mask, block_size, is_candidate=data.is_candidate)
    items, scores = empty_lists(len(windows), k)

    def store(first: int, some_items: np.ndarray, some_scores: np.ndarray) -> None:
        rows = slice(first, first + len(some_items))
        items[rows], scores[rows] = some_items, half_precision(some_scores)

    with progress_bar("teacher's top-K", len(windows), "windows") as advance:
        top_k.all_lists(store, advance)
    key = CacheKey.of(data.fingerprint, data.name, windows, weights_fingerprint(teacher), mask)
    return TeacherCache(items, scores, lists_manifest(key, len(windows), k))


@dataclasses.dataclass(frozen=True)
class TeachPlan:
    """What is the same for all shards of a dataset.

    Attributes:
        dataset: fingerprint of the dataset.
        teacher: fingerprint of the teacher's weights.
        num_items: of the catalogue.
        split: name of the `Protocol` of the lists, whose training rows are the teacher's.
        sequence_length: the teacher's L.
        target_length: the teacher's T.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.
        short_windows: whether the teacher was trained on windows of fewer than L items, too; then these have lists.
        split_times: where the teacher's rows were split by time, as `rd_tf.data.windows.Split.times`.
    """

    dataset: str
    teacher: str
    num_items: int
    split: str
    sequence_length: int
    target_length: int
    k: int
    mask: str
    block_size: int
    short_windows: bool = False
    split_times: tuple[int, int] | None = None

    @property
    def lengths(self) -> tuple[int, int]:
        """L and T."""
        return self.sequence_length, self.target_length

    def key(self, windows: str | None) -> CacheKey:
        """The key of the cache; `windows` is the windows' fingerprint, or None for any."""
        return CacheKey(self.dataset, self.split, *self.lengths, windows, self.teacher, self.mask)

    def cut(self, shard: DatasetShard) -> ShardWindows:
        """The training windows of a shard."""
        return cut_shard(shard, self.split, *self.lengths, self.short_windows, self.split_times)

    def default_place(self, teacher: str) -> str:
        """Where the cache of a teacher's run directory lies unless it is told otherwise."""
        return f"{teacher.rstrip('/')}/top_k/{self.split.replace('/', '-')}-k{self.k}-{self.mask}"


def make_plan(
    teacher: str, manifest: dict[str, Any], k: int, mask: str, block_size: int, seen_items: str = "auto"
) -> TeachPlan:
    """The plan of a teacher.

    Args:
        teacher: the run directory, for messages.
        manifest: its manifest.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.
        seen_items: "exclude", "keep" or, as the teacher was trained, "auto".

    Raises:
        InputError: the manifest does not tell L, T or the size of the catalogue.
    """
    config = manifest["model"]["config"]
    numbers = config.get("num_items"), config.get("sequence_length"), manifest.get("flags", {}).get("target_length")
    if not all(isinstance(number, int) for number in numbers):
        raise InputError(
            f"--teacher={teacher}: its manifest.json does not tell L, T and the number of items; train it again"
        )
    num_items, sequence_length, target_length = numbers
    trained, times = Protocol.of(manifest["split"]), manifest.get("split_times")
    protocol = protocol_of(trained.part, trained.by, seen_items, trained.name)
    if protocol.by == "time" and not (isinstance(times, list) and [type(time) for time in times] == [int, int]):
        raise InputError(f"--teacher={teacher}: its manifest.json does not tell split_times; train it again")
    return TeachPlan(
        manifest["dataset"]["fingerprint"],
        manifest["model"]["fingerprint"],
        num_items,
        protocol.name,
        sequence_length,
        target_length,
        k,
        protocol.mask(mask),
        block_size,
        # Runs of earlier versions do not tell, and had none.
        manifest.get("short_windows") is True,
        (times[0], times[1]) if times else None,
    )


@dataclasses.dataclass(frozen=True)
class Facts:
    """What must be known of all windows before the first list is made.

    Attributes:
        windows: how many there are.
        longest: most training items of a user.
        is_candidate: `[num_items + 1] bool`, the items that have a training row.
    """

    windows: int
    longest: int
    is_candidate: np.ndarray

    @classmethod
    def of(cls, shard: ShardWindows, num_items: int) -> "Facts":
        """Facts about one shard.

        Raises:
            InputError: it has an item beyond `num_items`.
        """
        return cls(len(shard.windows), shard.seen.longest, trained_items(shard.seen.items, num_items))

    @classmethod
    def together(cls, facts: Iterable["Facts"]) -> "Facts":
        """Facts about some shards together."""
        windows, longest, is_candidate = 0, 0, np.zeros(1, bool)
        for each in facts:
            windows, longest = windows + each.windows, max(longest, each.longest)
            is_candidate = is_candidate | each.is_candidate
        return cls(windows, longest, is_candidate)

    def check(self, plan: TeachPlan) -> None:
        """Checks that every window has K items left.

        Raises:
            InputError: fewer than K items would remain for some window.
        """
        check_k(plan.k, plan.mask, int(self.is_candidate.sum()), plan.target_length, self.longest)


def keeps(
    directory: str, exists: bool, is_cache: bool, check: Callable[[], object], force: bool, is_default_place: bool
) -> bool:
    """Whether a cache that is there stays, and says so; else what is there may be replaced.

    Args:
        directory: of the cache, for messages.
        exists: whether anything is there.
        is_cache: whether that is a teacher cache.
        check: raises InputError where the cache belongs to something else, or is damaged.
        force: whether a cache is made again though there is one that fits.
        is_default_place: whether the directory is the one in the teacher's run directory. What does not fit there was
            made before the teacher was trained again, so it may be replaced without asking.

    Raises:
        InputError: the directory holds something that must not be replaced.
    """
    if not exists:
        return False
    if not is_cache:
        raise InputError(f"--cache={directory} exists and is no teacher cache; name another directory")
    if force:
        return False
    try:
        check()
    except InputError as error:
        if is_default_place:
            return False
        raise InputError(f"{error} --force") from None
    print(f"teacher cache kept: {directory}", flush=True)
    return True


def keeps_cache(directory: Path, key: CacheKey, k: int, force: bool, is_default_place: bool = False) -> bool:
    """`keeps` for a directory of this machine, whose cache is read and checked as a whole.

    Args:
        directory: of the cache.
        key: what it has to belong to.
        k: K.
        force: as of `keeps`.
        is_default_place: as of `keeps`.
    """
    there = directory.exists(), is_teacher_cache(directory)
    return keeps(str(directory), *there, lambda: load_teacher_cache(directory, key, k), force, is_default_place)


def keep_or_make(
    directory: Path,
    key: CacheKey,
    k: int,
    make: Callable[[], TeacherCache | None],
    force: bool = False,
    is_default_place: bool = False,
) -> TeacherCache | None:
    """Sees to it that a cache is there: one that fits stays, else it is made.

    Processes beside each other may want the same lists in a default place: the later ones wait, and find those of the
    first.

    Args:
        directory: of the cache.
        key: what it has to belong to.
        k: K.
        make: makes the lists, which are then written; or writes the directory itself and gives None.
        force: as of `keeps`.
        is_default_place: as of `keeps`.

    Returns:
        What `make` gave; None, too, where the cache that was there stays.
    """
    if keeps_cache(directory, key, k, force, is_default_place):
        return None
    with _default_place(directory) if is_default_place else contextlib.nullcontext():
        if is_default_place and keeps_cache(directory, key, k, force, is_default_place):
            return None
        lists = make()
        if lists is not None:
            save_teacher_cache(lists, directory, replace=directory.exists())
        return lists


@contextlib.contextmanager
def _default_place(directory: Path) -> Iterator[None]:
    """Holds the place of the lists in the teacher's run directory."""
    try:
        with directory_lock(directory.parent, wait_seconds=math.inf):
            yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise InputError(
            f"{directory} cannot be written ({error.strerror}); make the lists elsewhere with python -m rd_tf.teach "
            "--cache=DIRECTORY, and give that directory as --teacher"
        ) from None


def make_cache(
    teacher: str,
    dataset: str,
    cache: str,
    k: int,
    mask: str,
    block_size: int,
    force: bool,
    data: SplitData | None = None,
    seen_items: str = "auto",
) -> Path:
    """Lists the teacher's best K items for every window of its own split, L and T.

    The cache of a sharded dataset is cut into the same shards, and without `data` one shard's windows are in memory at
    a time.

    Args:
        teacher: the teacher's run directory.
        dataset: the dataset directory it was trained on.
        cache: where the cache appears; empty for the default place, `<teacher>/top_k/<split>-k<K>-<mask>`.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.
        force: whether a cache that is there is made again; otherwise it is kept if it belongs to this teacher. A stale
            one in the default place is always made again.
        data: the dataset with the teacher's split, where it is in memory already.
        seen_items: as of `make_plan`.

    Returns:
        The cache's directory.

    Raises:
        InputError: the teacher or the dataset cannot be used, they do not belong together, or the place is taken.
    """
    manifest = run_directory.load_run_manifest(teacher, "teacher")
    check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "teacher", teacher)
    plan = make_plan(teacher, manifest, k, mask, block_size, seen_items)
    described = load_manifest(dataset)
    shards, entries = len(described.get("shards", [])), entries_of(described)
    if data is None and not shards:
        data = open_dataset(dataset).split(plan.split)

    def cut(number: int) -> ShardWindows:
        if data is None:
            return plan.cut(load_shard(dataset, number))
        return data.shard(entries[number]["first_user"], entries[number]["users"], *plan.lengths, plan.short_windows)

    if data is None:
        fingerprint, facts = _survey(plan, cut, len(entries))
    else:
        whole = data.shard(0, data.num_users, *plan.lengths, plan.short_windows)
        fingerprint, facts = whole.windows.fingerprint(), Facts.of(whole, plan.num_items)
    key = plan.key(fingerprint)
    directory = Path(cache or plan.default_place(teacher))

    def write() -> None:
        facts.check(plan)
        from rd_tf.models.registry import load_model

        lists = ShardLists(plan, load_model(teacher, "teacher"))
        with (
            atomic_directory(directory, replace=directory.exists()) as temporary,
            progress_bar("teacher's top-K", facts.windows, "windows") as advance,
        ):
            files = [
                lists.write(cut(number), facts.is_candidate, files_in(temporary), number, shards, advance)
                for number in range(len(entries))
            ]
            write_json(temporary / "manifest.json", cache_manifest(key, k, files, sharded=shards > 0))
        print(f"teacher cache: {directory} ({facts.windows:,} windows, K = {k}, mask {mask})", flush=True)

    keep_or_make(directory, key, k, write, force, is_default_place=not cache)
    return directory


def _survey(plan: TeachPlan, cut: Callable[[int], ShardWindows], shards: int) -> tuple[str, Facts]:
    """The fingerprint of all windows and facts about them, a shard in memory at a time."""
    facts = Facts.together([])

    def parts() -> Iterator[Windows]:
        nonlocal facts
        for number in range(shards):
            part = cut(number)
            facts = Facts.together([facts, Facts.of(part, plan.num_items)])
            yield part.of_the_dataset()
            # So that no two shards are in memory at a time.
            del part

    return windows_fingerprint(parts(), *plan.lengths), facts


class ShardLists:
    """Writes the lists of shards.

    Blocks begin anew with every shard, so that a shard's lists are the same, bit for bit, wherever and in whatever
    order the shards are worked on: the rounding of a matrix product depends on its shape.

    Args:
        plan: of the cache.
        model: the teacher, whose weights stand still.
    """

    def __init__(self, plan: TeachPlan, model: "SequenceRanker") -> None:
        from rd_tf.evaluation.ranks import FrozenScores

        self._plan, self._model, self._scores = plan, model, FrozenScores(model)

    def write(
        self,
        cut: ShardWindows,
        is_candidate: np.ndarray,
        open_file: OpenFile,
        number: int,
        shards: int,
        advance: Advance,
    ) -> Described:
        """Writes the two files of a shard.

        Args:
            cut: the shard's windows.
            is_candidate: `[num_items + 1] bool`, the items that have a training row in some shard.
            open_file: opens a file of the cache by its name.
            number: of the shard.
            shards: how many there are; 0 where the dataset is not sharded.
            advance: told of windows that are done.

        Returns:
            What the cache's manifest says of the files.

        Raises:
            InputError: K items do not remain for some window, or the teacher's scores are not finite.
        """
        from rd_tf.teacher.scoring import TopK

        plan = self._plan
        sizes = plan.k, plan.mask, plan.block_size
        top_k = TopK(
            self._model, cut.windows, cut.seen, *sizes, cut.first_user, scores=self._scores, is_candidate=is_candidate
        )
        with open_lists(open_file, number, shards, len(cut.windows), plan.k) as writer:
            top_k.all_lists(writer.store, advance)
        return writer.described()


def _cache_for(
    teacher: str, fingerprint: str, data: SplitData, windows: Windows, k: int, mask: str, block_size: int
) -> Path:
    """The cache of a run for windows that it was not trained on: those of a student with another L or T."""
    lengths = f"L{windows.sequences.shape[1]}-T{windows.targets.shape[1]}"
    directory = Path(f"{teacher.rstrip('/')}/top_k/{data.name}-k{k}-{mask}-{lengths}-{windows.fingerprint()[:8]}")
    key = CacheKey.of(data.fingerprint, data.name, windows, fingerprint, mask)

    def make() -> TeacherCache:
        from rd_tf.models.registry import load_model
        from rd_tf.teacher.scoring import RankerTeacher, lists_of

        return lists_of(RankerTeacher(load_model(teacher, "teacher"), data), windows, k, mask, block_size)

    keep_or_make(directory, key, k, make, is_default_place=True)
    return directory


def find_teacher(
    teacher: str, data: SplitData, windows: Windows, k: int, mask: str, dataset: str, block_size: int
) -> TeacherCache:
    """Opens the teacher's lists, after making them where the teacher is a run directory that has none yet.

    Args:
        teacher: a run directory, of any L and T, or a teacher cache.
        data: what the student is trained on.
        windows: those of the data that have the student's L and T.
        k: K.
        mask: "target", "seen" or "none".
        dataset: the directory of the data.
        block_size: windows a block, where lists are made.

    Raises:
        InputError: the teacher is of another dataset, split, L or T, or is no teacher at all.
    """
    fingerprint = None
    directory = Path(teacher)
    if not is_teacher_cache(directory):
        manifest = run_directory.load_run_manifest(teacher, "teacher")
        if not data.protocol.trains_as(manifest["split"]):
            raise InputError(
                f"--teacher={teacher} was trained with {Protocol.of(manifest['split']).flags}, but this run has "
                f"{data.protocol.flags}; use a teacher of the same split"
            )
        fingerprint = manifest["model"]["fingerprint"]
        if manifest.get("windows", windows.fingerprint()) == windows.fingerprint():
            directory = make_cache(teacher, dataset, "", k, mask, block_size, False, data, data.protocol.seen_items)
        else:
            check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "teacher", teacher)
            directory = _cache_for(teacher, fingerprint, data, windows, k, mask, block_size)
    key = CacheKey.of(data.fingerprint, data.name, windows, fingerprint, mask)
    cache = load_teacher_cache(directory, key, k)
    lowest, highest = cache.item_range()
    if lowest < 1 or highest > data.num_items:
        raise InputError(
            f"teacher cache {directory} lists items from {lowest} to {highest}, but the catalogue has 1 to "
            f"{data.num_items}; {AGAIN}"
        )
    if (window := cache.repeated()) is not None:
        raise InputError(f"teacher cache {directory} lists an item twice for window {window}; {AGAIN}")
    return cache
