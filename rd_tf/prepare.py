"""Prepares check-ins: python -m rd_tf.prepare --input=checkins.csv --dataset=data/mine."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rd_tf import command_line
from rd_tf.data.preparation import COLUMNS, WORLD, filters_of, kept_dataset, nothing_left, source_of, summary
from rd_tf.storage import InputError

if TYPE_CHECKING:
    from rd_tf.data.readers.check_ins import CheckIns


def prepare(
    *,
    input: list[str],
    format: str,
    dataset: str,
    user_column: str,
    item_column: str,
    time_column: str,
    duplicates: str,
    min_user_items: int,
    min_item_users: int,
    skip_bad_rows: bool,
    shards: int,
    tfds_data_dir: str,
    tfds_manual_dir: str,
    synthetic_users: int,
    synthetic_items: int,
    synthetic_visits: float,
    seed: int,
    force: bool,
    windows: str = "",
    split: str = "test",
    sequence_length: int = 5,
    target_length: int = 1,
    short_windows: str = "auto",
) -> dict[str, Any]:
    """Reads check-ins, drops repeated visits, takes the k-core, writes a dataset directory and prints a summary.

    A dataset that was made by the same flags from the same input is kept as it is; --force makes it again.
    --windows=FILE also writes the training windows of --split, with raw ids, for systems that make lists for windows;
    for a dataset that is there, --dataset and --windows are enough. They are those of a student with the same
    --short_windows; no ranker is named here, so auto is off.

    Returns:
        The dataset's manifest.

    Raises:
        InputError: a flag, a file or a row cannot be used.
    """
    flags = dict(locals())
    columns = {name: flags[name] for name in COLUMNS}
    write_windows = functools.partial(
        _write_windows, windows, dataset, split, sequence_length, target_length, short_windows == "on"
    )
    if windows and not windows.endswith(".parquet"):
        raise InputError(f"--windows={windows} has to end in .parquet; name such a file")
    if windows and not input and format == "auto" and not force and Path(dataset).exists():
        from rd_tf.data.dataset import load_manifest

        manifest = load_manifest(dataset)
        write_windows()
        return manifest
    if there := kept_dataset(flags):
        write_windows()
        return there
    # Reading takes pandas and pyarrow, which would make --help slow.
    from rd_tf.data.dataset import save_dataset
    from rd_tf.data.interactions import drop_duplicates, k_core, to_interactions
    from rd_tf.data.synthetic import synthetic_check_ins

    source = source_of(flags)
    if format == "synthetic":
        check_ins = synthetic_check_ins(**{name: flags[name] for name in WORLD})
    elif format == "tfds":
        check_ins, built = _from_tfds(input, columns, skip_bad_rows, tfds_data_dir, tfds_manual_dir)
        source |= built
    else:
        from rd_tf.data.readers.check_ins import read_check_ins
        from rd_tf.data.readers.files import file_sha256

        check_ins = read_check_ins(input, format, columns, skip_bad_rows)
        source["input_sha256"] = [file_sha256(path) for path in input]
    users, items, timestamps = check_ins.users, check_ins.items, check_ins.timestamps
    kept = drop_duplicates(users, items, timestamps, duplicates)
    users, items, timestamps = users[kept], items[kept], timestamps[kept]
    core = k_core(users, items, min_user_items, min_item_users)
    interactions = to_interactions(
        users[core.keep], items[core.keep], timestamps[core.keep], check_ins.user_ids, check_ins.item_ids
    )
    source |= filters_of(
        time_unit=check_ins.time_unit,
        duplicates=duplicates,
        min_user_items=min_user_items,
        min_item_users=min_item_users,
        skip_bad_rows=skip_bad_rows,
        rows_read=check_ins.rows_read,
        skipped=check_ins.skipped,
        first_skipped=check_ins.first_skipped,
        duplicates_dropped=int(len(kept) - kept.sum()),
        k_core_rounds=core.rounds,
        k_core_rows_dropped=int(len(core.keep) - core.keep.sum()),
    )
    if not len(interactions):
        raise InputError(nothing_left(source))
    manifest = save_dataset(interactions, dataset, source, replace=force, shards=shards)
    print(summary(manifest, dataset))
    write_windows()
    return manifest


def _write_windows(
    path: str, dataset: str, split: str, sequence_length: int, target_length: int, short_windows: bool
) -> None:
    if not path:
        return
    from rd_tf.data.windows import open_dataset
    from rd_tf.teacher.lists import write_windows

    count = write_windows(path, open_dataset(dataset).split(split), sequence_length, target_length, short_windows)
    print(f"windows             {count:,} in {path}")


def _from_tfds(
    names: list[str], columns: dict[str, str], skip_bad_rows: bool, data_dir: str, manual_dir: str
) -> tuple["CheckIns", dict[str, Any]]:
    """The check-ins of datasets of TensorFlow Datasets, and what the manifest says of the datasets."""
    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.data.readers.check_ins import join_tables
    from rd_tf.data.readers.tfds import describe_builder, open_builder, read_tfds_table, records_sha256

    builders = [open_builder(name, data_dir, manual_dir) for name in names]
    check_ins = join_tables(
        ((builder.info.full_name, read_tfds_table(builder, columns), columns) for builder in builders), skip_bad_rows
    )
    built = {
        "tfds": [describe_builder(builder) for builder in builders],
        "input_sha256": [records_sha256(builder) for builder in builders],
    }
    return check_ins, built


if __name__ == "__main__":
    command_line.run(prepare)
