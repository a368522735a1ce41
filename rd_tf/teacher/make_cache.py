"""From a teacher's run directory to its cache."""

from pathlib import Path

from rd_tf import run_directory
from rd_tf.data.dataset_directory import check_same_dataset, load_dataset
from rd_tf.data.split import split_interactions
from rd_tf.data.teacher_cache import CacheKey, is_teacher_cache, load_teacher_cache
from rd_tf.data.teacher_cache_writer import write_teacher_cache
from rd_tf.data.user_items import UserItems
from rd_tf.data.windows import make_windows
from rd_tf.errors import InputError
from rd_tf.models.storage import load_model
from rd_tf.progress import progress_bar
from rd_tf.teacher.top_k import TopK


def make_cache(teacher: str, dataset: str, cache: str, k: int, mask: str, block_size: int, force: bool) -> Path:
    """Lists the teacher's best K items for every window of its own split, L and T.

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
    trained_on = manifest["dataset"]["fingerprint"]
    check_same_dataset(dataset, trained_on, "teacher", teacher)
    interactions = load_dataset(dataset)
    split, length = manifest["split"], manifest["model"]["config"].get("sequence_length")
    target_length = manifest.get("flags", {}).get("target_length")
    if not isinstance(length, int) or not isinstance(target_length, int):
        raise InputError(f"--teacher={teacher}: its manifest.json does not tell L and T; train it again")
    train = split_interactions(interactions, split).train
    windows = make_windows(interactions, train, length, target_length)
    key = CacheKey.of(trained_on, split, windows, manifest["model"]["fingerprint"], mask)
    directory = Path(cache) if cache else Path(teacher) / "top_k" / f"{split}-k{k}-{mask}"
    if directory.exists() and not is_teacher_cache(directory):
        raise InputError(f"--cache={directory} exists and is no teacher cache; name another directory")
    if directory.exists() and not force:
        try:
            load_teacher_cache(directory, key, k)
        except InputError as error:
            if cache:
                raise InputError(f"{error} --force") from None
            # The default place belongs to this teacher: what does not fit there was made before it was trained again.
            force = True
        else:
            print(f"teacher cache kept: {directory}", flush=True)
            return directory
    model = load_model(teacher, "teacher")
    seen = UserItems(interactions.users[train], interactions.items[train], interactions.num_users)
    top_k = TopK(model, windows, seen, k, mask, block_size)
    with (
        write_teacher_cache(directory, key, len(windows), k, replace=force) as store,
        progress_bar("teacher's top-K", len(windows), "windows") as advance,
    ):
        top_k.all_lists(store, advance)
    print(f"teacher cache: {directory} ({len(windows):,} windows, K = {k}, mask {mask})", flush=True)
    return directory
