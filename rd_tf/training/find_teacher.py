"""From --teacher to the teacher's lists for the student's windows."""

from pathlib import Path
from typing import Any

from rd_tf import run_directory
from rd_tf.data.interactions import Interactions
from rd_tf.data.teacher_lists import AGAIN, CacheKey, TeacherCache, is_teacher_cache, load_teacher_cache
from rd_tf.data.windows import Windows
from rd_tf.storage import InputError
from rd_tf.teacher.cache import make_cache


def find_teacher(interactions: Interactions, windows: Windows, flags: dict[str, Any]) -> TeacherCache:
    """Opens the teacher's lists, after making them where --teacher is a run directory that has none yet.

    Args:
        interactions: the dataset.
        windows: the student's windows.
        flags: every flag of `rd_tf.train`.

    Raises:
        InputError: the teacher is of another dataset, split, L or T, or is no teacher at all.
    """
    teacher, k, mask = flags["teacher"], flags["k"], flags["mask"]
    fingerprint = None
    directory = Path(teacher)
    if not is_teacher_cache(directory):
        manifest = run_directory.load_run_manifest(teacher, "teacher")
        if manifest["split"] != flags["split"]:
            raise InputError(
                f"--teacher={teacher} was trained with --split={manifest['split']}, but this run has "
                f"--split={flags['split']}; use a teacher of the same split"
            )
        fingerprint = manifest["model"]["fingerprint"]
        directory = make_cache(teacher, flags["dataset"], "", k, mask, flags["block_size"], force=False)
    key = CacheKey.of(interactions.fingerprint(), flags["split"], windows, fingerprint, mask)
    cache = load_teacher_cache(directory, key, k)
    lowest, highest = cache.item_range()
    if lowest < 1 or highest > interactions.num_items:
        raise InputError(
            f"teacher cache {directory} lists items from {lowest} to {highest}, but the catalogue has 1 to "
            f"{interactions.num_items}; {AGAIN}"
        )
    return cache
