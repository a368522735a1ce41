"""Where the Beam job's teacher cache goes, on this machine or on a remote file system."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.beam_paths import empty_directory, is_remote, local_files, names_in
from rd_tf.data.teacher_lists import check_cache, is_teacher_cache, load_cache_manifest, load_teacher_cache
from rd_tf.storage import InputError, atomic_directory
from rd_tf.teacher.cache import TeachPlan, may_keep

_MANIFEST = "manifest.json"
_ARRAY = re.compile(r"(items|scores)(-\d{5}-of-\d{5})?\.npy")


def keeps_cache(directory: str, plan: TeachPlan, is_default_place: bool, force: bool) -> bool:
    """Whether there is a cache that belongs to the plan; else whatever is there may be replaced.

    A cache on this machine is read and checked as a whole, of a remote one the manifest; what is the matter with its
    files, training finds.

    Args:
        directory: of the cache.
        plan: of the cache.
        is_default_place: whether nobody named the directory.
        force: whether a cache is made anyway.

    Raises:
        InputError: the directory holds something else, which must not be replaced.
    """
    if is_remote(directory):
        names = names_in(directory)
        # Without a manifest it is what a killed job has left.
        exists = bool(names) and not all(_ARRAY.fullmatch(name) for name in names)
        is_cache = _MANIFEST in names and _is_remote_cache(directory)
    else:
        exists, is_cache = Path(directory).exists(), is_teacher_cache(directory)
    if exists and not is_cache:
        raise InputError(f"--cache={directory} exists and is no teacher cache; name another directory")
    return exists and not force and may_keep(lambda: _check(directory, plan), is_default_place)


@contextlib.contextmanager
def cache_place(directory: str) -> Iterator[str]:
    """Where to write the files of a cache, which replaces what is there.

    On this machine they are written beside it, and the cache appears whole when the block ends without an error. On a
    remote file system they are written in place: until the manifest is there, the last of them, it is no cache.
    """
    if not is_remote(directory):
        with atomic_directory(directory, replace=True) as temporary:
            yield str(temporary.absolute())
        return
    empty_directory(directory, first=_MANIFEST)
    yield directory


def _check(directory: str, plan: TeachPlan) -> None:
    if not is_remote(directory):
        load_teacher_cache(directory, plan.key(None), plan.k)
        return
    with local_files(directory, [_MANIFEST]) as local:
        check_cache(directory, load_cache_manifest(local), plan.key(None), plan.k)


def _is_remote_cache(directory: str) -> bool:
    with local_files(directory, [_MANIFEST]) as local:
        return is_teacher_cache(local)
