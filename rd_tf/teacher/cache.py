"""Writing a teacher's lists: what is to be written, whether it is there already, window by window or shard by shard."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf import run_directory
from rd_tf.data.dataset import DatasetShard, check_same_dataset, load_dataset, load_manifest, load_shard
from rd_tf.data.teacher_lists import (
    CacheKey,
    Described,
    OpenFile,
    cache_manifest,
    files_in,
    is_teacher_cache,
    load_teacher_cache,
    open_lists,
)
from rd_tf.data.windows import ShardWindows, Windows, cut_shard, windows_fingerprint
from rd_tf.evaluation.ranks import FrozenScores
from rd_tf.models.ranker import SequenceRanker
from rd_tf.models.registry import load_model
from rd_tf.runtime import Advance, progress_bar
from rd_tf.storage import InputError, atomic_directory, write_json
from rd_tf.teacher.top_k import TopK, check_k


@dataclasses.dataclass(frozen=True)
class TeachPlan:
    """What is the same for all shards of a dataset.

    Attributes:
        dataset: fingerprint of the dataset.
        teacher: fingerprint of the teacher's weights.
        num_items: of the catalogue.
        split: the teacher's, "validation" or "test".
        sequence_length: the teacher's L.
        target_length: the teacher's T.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.
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

    def key(self, windows: str | None) -> CacheKey:
        """The key of the cache; `windows` is the windows' fingerprint, or None for any."""
        lengths = self.sequence_length, self.target_length
        return CacheKey(self.dataset, self.split, *lengths, windows, self.teacher, self.mask)

    def cut(self, shard: DatasetShard) -> ShardWindows:
        """The training windows of a shard."""
        return cut_shard(shard, self.split, self.sequence_length, self.target_length)

    def default_place(self, teacher: str) -> str:
        """Where the cache of a teacher's run directory lies unless it is told otherwise."""
        return f"{teacher.rstrip('/')}/top_k/{self.split}-k{self.k}-{self.mask}"


def make_plan(teacher: str, manifest: dict[str, Any], k: int, mask: str, block_size: int) -> TeachPlan:
    """The plan of a teacher.

    Args:
        teacher: the run directory, for messages.
        manifest: its manifest.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.

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
    return TeachPlan(
        manifest["dataset"]["fingerprint"],
        manifest["model"]["fingerprint"],
        num_items,
        manifest["split"],
        sequence_length,
        target_length,
        k,
        mask,
        block_size,
    )


@dataclasses.dataclass(frozen=True)
class Survey:
    """Facts about the windows of all shards.

    Attributes:
        fingerprint: `Windows.fingerprint()` of all windows.
        windows: how many there are.
        longest: most training items of a user.
        is_candidate: `[num_items + 1] bool`, the items that have a training row.
    """

    fingerprint: str
    windows: int
    longest: int
    is_candidate: np.ndarray


def survey_windows(plan: TeachPlan, cut: Callable[[int], ShardWindows], shards: int) -> Survey:
    """Goes over the windows once, a shard at a time.

    Args:
        plan: of the cache.
        cut: from a shard's number to its windows.
        shards: how many there are.
    """
    windows = longest = 0
    is_candidate = np.zeros(plan.num_items + 1, bool)

    def parts() -> Iterator[Windows]:
        nonlocal windows, longest
        for number in range(shards):
            part = cut(number)
            windows, longest = windows + len(part.windows), max(longest, part.seen.longest)
            is_candidate[:] |= part.seen.occurring(plan.num_items)
            yield part.of_the_dataset()
            # Else it would stay in memory until the next one is there.
            del part

    fingerprint = windows_fingerprint(parts(), plan.sequence_length, plan.target_length)
    return Survey(fingerprint, windows, longest, is_candidate)


def may_keep(check: Callable[[], object], is_default_place: bool) -> bool:
    """Whether a cache belongs to the teacher at hand; where it does not, it may be replaced.

    Args:
        check: raises InputError where the cache belongs to something else, or is damaged.
        is_default_place: whether nobody named the cache's directory.

    Raises:
        InputError: it belongs to something else, and somebody named the directory.
    """
    try:
        check()
    except InputError as error:
        if is_default_place:
            # It belongs to this teacher: what does not fit there was made before it was trained again.
            return False
        raise InputError(f"{error} --force") from None
    return True


def make_cache(teacher: str, dataset: str, cache: str, k: int, mask: str, block_size: int, force: bool) -> Path:
    """Lists the teacher's best K items for every window of its own split, L and T.

    The cache of a sharded dataset is cut into the same shards, and one shard's windows are in memory at a time.

    Args:
        teacher: the teacher's run directory.
        dataset: the dataset directory it was trained on.
        cache: where the cache appears; empty for the default place, `<teacher>/top_k/<split>-k<K>-<mask>`.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.
        force: whether a cache that is there is made again; otherwise it is kept if it belongs to this teacher. A stale
            one in the default place is always made again.

    Returns:
        The cache's directory.

    Raises:
        InputError: the teacher or the dataset cannot be used, they do not belong together, or the place is taken.
    """
    manifest = run_directory.load_run_manifest(teacher, "teacher")
    check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "teacher", teacher)
    plan = make_plan(teacher, manifest, k, mask, block_size)
    shards = len(load_manifest(dataset).get("shards", []))
    cut = _cutter(plan, dataset, shards)
    survey = survey_windows(plan, cut, shards or 1)
    key = plan.key(survey.fingerprint)
    directory = Path(cache or plan.default_place(teacher))
    if directory.exists() and not is_teacher_cache(directory):
        raise InputError(f"--cache={directory} exists and is no teacher cache; name another directory")
    if directory.exists() and not force:
        if may_keep(lambda: load_teacher_cache(directory, key, k), is_default_place=not cache):
            print(f"teacher cache kept: {directory}", flush=True)
            return directory
        force = True
    check_k(k, mask, int(survey.is_candidate.sum()), plan.target_length, survey.longest)
    lists = ShardLists(plan, load_model(teacher, "teacher"))
    with (
        atomic_directory(directory, replace=force) as temporary,
        progress_bar("teacher's top-K", survey.windows, "windows") as advance,
    ):
        files = [
            lists.write(cut(number), survey.is_candidate, files_in(temporary), number, shards, advance)
            for number in range(shards or 1)
        ]
        write_json(temporary / "manifest.json", cache_manifest(key, k, files, sharded=shards > 0))
    print(f"teacher cache: {directory} ({survey.windows:,} windows, K = {k}, mask {mask})", flush=True)
    return directory


def _cutter(plan: TeachPlan, dataset: str, shards: int) -> Callable[[int], ShardWindows]:
    """From a shard's number to its windows, which are in memory as long as the caller keeps them."""
    if shards:
        return lambda number: plan.cut(load_shard(dataset, number))
    # What is in memory as a whole is read, checked against its fingerprint, and cut once.
    whole = load_dataset(dataset)
    windows = plan.cut(DatasetShard(0, whole.num_users, whole.users, whole.items, whole.timestamps))
    return lambda number: windows


class ShardLists:
    """Writes the lists of shards.

    Blocks begin anew with every shard, so that a shard's lists are the same, bit for bit, wherever and in whatever
    order the shards are worked on: the rounding of a matrix product depends on its shape.

    Args:
        plan: of the cache.
        model: the teacher, whose weights stand still.
    """

    def __init__(self, plan: TeachPlan, model: SequenceRanker) -> None:
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
        plan = self._plan
        sizes = plan.k, plan.mask, plan.block_size
        top_k = TopK(
            self._model, cut.windows, cut.seen, *sizes, cut.first_user, scores=self._scores, is_candidate=is_candidate
        )
        with open_lists(open_file, number, shards, len(cut.windows), plan.k) as writer:
            top_k.all_lists(writer.store, advance)
        return writer.described()
