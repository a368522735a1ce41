"""python -m rd_tf.teach: lists a teacher's best K items for every training window."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rd_tf import command_line
from rd_tf.flag_definitions import CHOOSING_SPLITS, SOLVED_TEACHERS, protocol_of
from rd_tf.storage import InputError

if TYPE_CHECKING:
    from rd_tf.data.teacher_lists import TeacherCache
    from rd_tf.data.windows import SplitData, Windows
    from rd_tf.teacher.named import TeacherNames


def teach(
    *,
    teacher: str,
    dataset: str,
    cache: str,
    k: int,
    mask: str,
    block_size: int,
    force: bool,
    lists: str = "",
    user_column: str = "user_id",
    item_column: str = "item_id",
    rank_column: str = "",
    score_column: str = "",
    position_column: str = "",
    saved_model: str = "",
    signature: str = "serving_default",
    split: str = "test",
    split_by: str = "auto",
    seen_items: str = "auto",
    sequence_length: int = 5,
    target_length: int = 1,
    short_windows: str = "auto",
    unknown: str = "refuse",
    incomplete: str = "refuse",
    fusion: str = "zscore",
    fusion_weights: Sequence[str] = (),
    ease_l2: float = 0.0,
    import_module: Sequence[str] = (),
) -> str:
    """Writes the teacher cache: the top-K items, with scores, of every training window.

    The teacher is a run directory or one that is solved, ease, item_knn or popularity (--teacher), several of both with
    commas between them, which are fused (--fusion), a file of lists that any system made (--lists), or a signature of a
    SavedModel (--saved_model). With one run directory the windows are those of the teacher's own split, L and T, and a
    sharded dataset is read shard by shard and its cache has the same shards; else they are those of --split,
    --sequence_length, --target_length and --short_windows (auto is off here, where no student is named), which the
    student has to have too. A cache that exists and belongs to this teacher is kept.

    Returns:
        The cache's directory.

    Raises:
        InputError: a flag, the teacher or the dataset cannot be used, or they do not belong together.
    """
    command_line.import_plugins(import_module)
    teachers = {"teacher": teacher, "lists": lists, "saved_model": saved_model}
    given = [f"--{name}={value}" for name, value in teachers.items() if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: there is one teacher; leave the others out")
    if not given:
        raise InputError("--teacher is empty; name a run directory, or a file by --lists, or a --saved_model")
    is_one_run = bool(teacher) and "," not in teacher and teacher not in SOLVED_TEACHERS
    if not dataset:
        raise InputError("--dataset is empty; name a dataset directory")
    if not (cache or is_one_run):
        raise InputError("--cache is empty; name the directory that the teacher cache is to appear in")
    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.runtime import share_cores

    share_cores(0)
    if is_one_run:
        from rd_tf.teacher.cache import make_cache

        return str(make_cache(teacher, dataset, cache, k, mask, block_size, force, seen_items=seen_items))
    from rd_tf.data.teacher_lists import CacheKey
    from rd_tf.data.windows import open_dataset
    from rd_tf.teacher.cache import keep_or_make
    from rd_tf.teacher.lists import counts_line, read_list_file

    protocol = protocol_of(split, split_by, seen_items)
    data, mask, short = open_dataset(dataset).split(protocol.name), protocol.mask(mask), short_windows == "on"
    windows = data.windows(sequence_length, target_length, short)
    if teacher:
        from rd_tf.teacher.named import TeacherNames

        names = TeacherNames.parse(teacher, fusion, fusion_weights, ease_l2)
        key = CacheKey.of(data.fingerprint, data.name, windows, names.fingerprint(data), mask)
        make = functools.partial(_lists_of, names, data, windows, k, mask, block_size)
    elif lists:
        columns = {
            "user_column": user_column,
            "item_column": item_column,
            "rank_column": rank_column,
            "score_column": score_column,
            "position_column": position_column,
        }
        named = {flag: name for flag, name in columns.items() if name}
        file = read_list_file(lists, data, windows, named, unknown)
        key = file.key(mask, incomplete)
        make = functools.partial(file.of_windows, k, mask, incomplete)
    else:
        from rd_tf.teacher.saved_model import SavedModelLists

        model = SavedModelLists(saved_model, signature, data.interactions, unknown)
        key = model.key(data, sequence_length, target_length, mask, incomplete, short)
        make = functools.partial(model.of_windows, data, k, key, incomplete, block_size, short)
    made = keep_or_make(Path(cache), key, k, make, force)
    if made is None:
        return cache
    if not teacher:
        print(counts_line(made))
    print(f"teacher cache: {cache} ({len(made):,} windows, K = {k}, mask {mask})", flush=True)
    return cache


def _lists_of(
    names: "TeacherNames", data: "SplitData", windows: "Windows", k: int, mask: str, block_size: int
) -> "TeacherCache":
    """The lists of solved or fused teachers; says how good the teacher is, but not on the test split."""
    from rd_tf.evaluation.held_out import left_out_line, users_line
    from rd_tf.teacher.named import make_teacher
    from rd_tf.teacher.scoring import evaluate_teacher, lists_of

    made_by = make_teacher(names, data)
    if data.protocol.part in CHOOSING_SPLITS:
        found = evaluate_teacher(made_by)
        print(
            f"{data.name} MAP of the teacher: {found.metrics['map']:.4f} {users_line(found.counts)}; "
            + left_out_line(found.counts, data.protocol.keeps_seen),
            flush=True,
        )
    return lists_of(made_by, windows, k, mask, block_size)


if __name__ == "__main__":
    command_line.run(teach)
