"""From a teacher's run directory to its cache."""

from collections.abc import Callable
from pathlib import Path

from rd_tf import run_directory, storage
from rd_tf.data.dataset_directory import check_same_dataset, load_dataset, load_manifest
from rd_tf.data.dataset_shard import DatasetShard, load_shard
from rd_tf.data.shard_windows import ShardWindows
from rd_tf.data.teacher_cache import is_teacher_cache, load_teacher_cache
from rd_tf.data.teacher_cache_writer import cache_manifest, files_in
from rd_tf.errors import InputError
from rd_tf.models.storage import load_model
from rd_tf.progress import progress_bar
from rd_tf.teacher.check_k import check_k
from rd_tf.teacher.may_keep import may_keep
from rd_tf.teacher.plan import TeachPlan, make_plan
from rd_tf.teacher.shard_lists import ShardLists
from rd_tf.teacher.survey import survey_windows


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
        storage.atomic_directory(directory, replace=force) as temporary,
        progress_bar("teacher's top-K", survey.windows, "windows") as advance,
    ):
        files = [
            lists.write(cut(number), survey.is_candidate, files_in(temporary), number, shards, advance)
            for number in range(shards or 1)
        ]
        storage.write_json(temporary / "manifest.json", cache_manifest(key, k, files, sharded=shards > 0))
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
