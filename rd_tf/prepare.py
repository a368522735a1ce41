"""Prepares check-ins: python -m rd_tf.prepare --input=checkins.csv --dataset=data/mine."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rd_tf import command_line
from rd_tf.storage import InputError, remove_leftovers

if TYPE_CHECKING:
    from rd_tf.data.readers.check_ins import CheckIns

COLUMNS = ("user_column", "item_column", "time_column")
WORLD = ("synthetic_users", "synthetic_items", "synthetic_visits", "seed")


def source_of(flags: dict[str, Any]) -> dict[str, Any]:
    """What the manifest's "source" holds of the flags that say what is read."""
    read = {"synthetic": WORLD, "tfds": (*COLUMNS, "tfds_data_dir")}.get(flags["format"], COLUMNS)
    return {name: flags[name] for name in ("input", "format", *read)}


def filters_of(
    *,
    time_unit: str,
    duplicates: str,
    min_user_items: int,
    min_item_users: int,
    skip_bad_rows: bool,
    rows_read: int,
    skipped: dict[str, int],
    first_skipped: str,
    duplicates_dropped: int,
    k_core_rounds: int,
    k_core_rows_dropped: int,
) -> dict[str, Any]:
    """What the manifest's "source" holds of reading and filtering.

    Args:
        time_unit: what a timestamp counts, in words.
        duplicates: the flag.
        min_user_items: the flag.
        min_item_users: the flag.
        skip_bad_rows: the flag.
        rows_read: all rows, usable or not.
        skipped: from a reason to the number of rows left out.
        first_skipped: where the first of them stands; empty if there is none.
        duplicates_dropped: rows.
        k_core_rounds: passes in which something was dropped.
        k_core_rows_dropped: rows.
    """
    skipped_rows: dict[str, Any] = {"count": sum(skipped.values()), "reasons": skipped}
    if first_skipped:
        skipped_rows["first"] = first_skipped
    return {
        "time_unit": time_unit,
        "duplicates": duplicates,
        "min_user_items": min_user_items,
        "min_item_users": min_item_users,
        "skip_bad_rows": skip_bad_rows,
        "rows_read": rows_read,
        "skipped_rows": skipped_rows,
        "duplicates_dropped": duplicates_dropped,
        "k_core_rounds": k_core_rounds,
        "k_core_rows_dropped": k_core_rows_dropped,
    }


def nothing_left(source: dict[str, Any]) -> str:
    """What to say where no row remains."""
    read, skipped, dropped = source["rows_read"], source["skipped_rows"]["count"], source["k_core_rows_dropped"]
    if read == skipped:
        return f"--input: no row can be used ({read} read, {skipped} of them bad); give files that hold check-ins"
    return (
        f"nothing remains: --min_user_items={source['min_user_items']} and --min_item_users={source['min_item_users']}"
        f" drop all {dropped} rows; lower them"
    )


def summary(manifest: dict[str, Any], dataset: str) -> str:
    """What a preparation prints in the end."""
    source = manifest["source"]
    skipped = source["skipped_rows"]
    lines = [f"rows read           {source['rows_read']:,}", f"bad rows skipped    {skipped['count']:,}"]
    lines += [f"  {reason}: {count:,}" for reason, count in skipped["reasons"].items()]
    if "first" in skipped:
        lines.append(f"  the first: {skipped['first']}")
    lines += [
        f"duplicates dropped  {source['duplicates_dropped']:,} ({source['duplicates']})",
        f"k-core              {source['k_core_rounds']} rounds, {source['k_core_rows_dropped']:,} rows dropped",
        f"users               {manifest['users']:,}",
        f"items               {manifest['items']:,}",
        f"interactions        {manifest['interactions']:,}",
        f"fingerprint         {manifest['fingerprint'][:16]}",
        f"dataset             {dataset}",
    ]
    return "\n".join(lines)


def kept_dataset(flags: dict[str, Any]) -> dict[str, Any] | None:
    """Checks the flags of a preparation, and says whether a dataset that is there is kept.

    It is kept where it was made by the same flags from the same input and is not to be replaced.

    Args:
        flags: every flag of `rd_tf.prepare`, of which those that the manifest does not tell have no part in the
            dataset; others are not looked at.

    Returns:
        The manifest of the dataset that is kept, or None where one is to be made.

    Raises:
        InputError: flags do not fit together, the directory may not be written, or the dataset in it was made by other
            flags or from other input.
    """
    _check_flags(flags)
    if flags["force"] or not Path(flags["dataset"]).exists():
        return None
    # NumPy and pyarrow would make --help slow.
    from rd_tf.data.dataset import load_manifest
    from rd_tf.data.readers.files import input_sha256

    directory, manifest = flags["dataset"], load_manifest(flags["dataset"])
    source = {**manifest["source"], "shards": len(manifest.get("shards", []))}
    flags = {**flags, "shards": min(flags["shards"], manifest["users"])}
    for name, value in flags.items():
        if _same_name(source.get(name, value), name, flags) != _same_name(value, name, flags):
            raise InputError(
                f"--dataset={directory} was made with --{name}={_as_text(source[name])}, not {_as_text(value)}; "
                "name another directory, or --force makes it again"
            )
    names = ("input", "format", "tfds_data_dir", "tfds_manual_dir")
    if source.get("input_sha256", []) != input_sha256(**{name: flags[name] for name in names}):
        raise InputError(
            f"--dataset={directory} was made when the files of --input={','.join(flags['input'])} held something else; "
            "name another directory, or --force makes it again"
        )
    remove_leftovers(directory)
    print(f"dataset kept: {directory}", flush=True)
    return manifest


def _same_name(value: Any, name: str, flags: dict[str, Any]) -> Any:
    """A flag's value, files by their whole path: ./a.csv is a.csv."""
    is_files = name == "input" and flags["format"] != "tfds" and isinstance(value, list)
    return [str(Path(path).absolute().resolve()) for path in value] if is_files else value


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _check_flags(flags: dict[str, Any]) -> None:
    input, format, dataset = flags["input"], flags["format"], flags["dataset"]
    if not dataset:
        raise InputError("--dataset is empty; name the directory to write")
    if format == "synthetic" and input:
        raise InputError(f"--format=synthetic reads no files; leave out --input={','.join(input)}")
    if format != "synthetic" and not input:
        raise InputError(
            "--input is empty; name the check-in files (with --format=tfds: the datasets), or pass --format=synthetic"
            " for the built-in world"
        )
    if len({flags[name] for name in COLUMNS}) < len(COLUMNS):
        named = ", ".join(f"--{name}={flags[name]}" for name in COLUMNS)
        raise InputError(f"{named}: user, item and time need a column each")
    directory = Path(dataset)
    if not directory.exists():
        above = next(parent for parent in directory.absolute().parents if parent.exists())
        if not above.is_dir():
            raise InputError(f"--dataset={dataset}: {above} is a file, not a directory; name another directory")
        return
    if not flags["force"]:
        if (directory / "manifest.json").is_file():
            return
        raise InputError(f"--dataset={dataset} exists already; name another directory or pass --force to replace it")
    from rd_tf.data.dataset import is_dataset

    # --force replaces a dataset; it must not wipe out a directory that somebody named by mistake.
    if not directory.is_dir() or (any(directory.iterdir()) and not is_dataset(directory)):
        raise InputError(
            f"--dataset={dataset} is not a dataset, so --force does not replace it; name another directory"
        )
    for path in input:
        if directory.resolve() in Path(path).resolve().parents:
            raise InputError(f"--input: {path} lies in the directory that --force would replace; move it elsewhere")


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
