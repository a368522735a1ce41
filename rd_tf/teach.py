"""python -m rd_tf.teach: lists a trained teacher's best K items for every training window."""

from rd_tf import command_line
from rd_tf.storage import InputError


def teach(*, teacher: str, dataset: str, cache: str, k: int, mask: str, block_size: int, force: bool) -> str:
    """Writes the teacher cache: the top-K items, with scores, of every window that the teacher was trained on.

    The windows are those of the teacher's own split, L and T, so a student trained on the same split of the same
    dataset finds a row for each of its windows. --teacher names the teacher's run directory. A cache that exists and
    belongs to this teacher is kept. A sharded dataset is read shard by shard; its cache has the same shards.
    """
    for name, value in (("teacher", teacher), ("dataset", dataset)):
        if not value:
            raise InputError(f"--{name} is empty; name a {'run' if name == 'teacher' else name} directory")
    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.runtime import share_cores
    from rd_tf.teacher.cache import make_cache

    share_cores(0)
    return str(make_cache(teacher, dataset, cache, k, mask, block_size, force))


if __name__ == "__main__":
    command_line.run(teach)
