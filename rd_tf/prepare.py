"""Prepares check-ins: python -m rd_tf.prepare --input=checkins.csv --dataset=data/mine."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rd_tf import command_line, storage
from rd_tf.errors import InputError

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
) -> dict[str, Any]:
    """Reads check-ins, drops repeated visits, takes the k-core, writes a dataset directory and prints a summary.

    A dataset that was made by the same flags from the same input is kept as it is; --force makes it again.

    Returns:
        The dataset's manifest.

    Raises:
        InputError: a flag, a file or a row cannot be used.
    """
    flags = dict(locals())
    columns = {"user_column": user_column, "item_column": item_column, "time_column": time_column}
    _check(input, format, columns, dataset, force)
    if not force and Path(dataset).exists():
        from rd_tf.data.kept_dataset import kept_dataset

        manifest = kept_dataset(flags)
        print(f"dataset kept: {dataset}", flush=True)
        return manifest
    # Reading takes pandas and pyarrow, which would make --help slow.
    from rd_tf.data.dataset_directory import save_dataset
    from rd_tf.data.filters import drop_duplicates, k_core, to_interactions

    source: dict[str, Any] = {"input": list(input), "format": format}
    if format == "synthetic":
        check_ins = _synthetic(synthetic_users, synthetic_items, synthetic_visits, seed)
        source |= {
            "synthetic_users": synthetic_users,
            "synthetic_items": synthetic_items,
            "synthetic_visits": synthetic_visits,
            "seed": seed,
        }
    elif format == "tfds":
        check_ins, built = _from_tfds(input, columns, skip_bad_rows, tfds_data_dir, tfds_manual_dir)
        source |= {**columns, "tfds_data_dir": tfds_data_dir, **built}
    else:
        from rd_tf.data.readers.check_ins import read_check_ins

        check_ins = read_check_ins(input, format, columns, skip_bad_rows)
        source |= columns
        source["input_sha256"] = [storage.file_sha256(path) for path in input]
    users, items, timestamps = check_ins.users, check_ins.items, check_ins.timestamps
    kept = drop_duplicates(users, items, timestamps, duplicates)
    users, items, timestamps = users[kept], items[kept], timestamps[kept]
    core = k_core(users, items, min_user_items, min_item_users)
    interactions = to_interactions(
        users[core.keep], items[core.keep], timestamps[core.keep], check_ins.user_ids, check_ins.item_ids
    )
    source |= {
        "time_unit": check_ins.time_unit,
        "duplicates": duplicates,
        "min_user_items": min_user_items,
        "min_item_users": min_item_users,
        "skip_bad_rows": skip_bad_rows,
        "rows_read": check_ins.rows_read,
        "skipped_rows": {"count": sum(check_ins.skipped.values()), "reasons": check_ins.skipped},
        "duplicates_dropped": int(len(kept) - kept.sum()),
        "k_core_rounds": core.rounds,
        "k_core_rows_dropped": int(len(core.keep) - core.keep.sum()),
    }
    if check_ins.first_skipped:
        source["skipped_rows"]["first"] = check_ins.first_skipped
    if not len(interactions):
        raise InputError(_nothing_left(source))
    manifest = save_dataset(interactions, dataset, source, replace=force, shards=shards)
    print(_summary(manifest, dataset))
    return manifest


def _check(input: list[str], format: str, columns: dict[str, str], dataset: str, force: bool) -> None:
    if not dataset:
        raise InputError("--dataset is empty; name the directory to write")
    if format == "synthetic" and input:
        raise InputError(f"--format=synthetic reads no files; leave out --input={','.join(input)}")
    if format != "synthetic" and not input:
        raise InputError(
            "--input is empty; name the check-in files (with --format=tfds: the datasets), or pass --format=synthetic"
            " for the built-in world"
        )
    if len(set(columns.values())) < len(columns):
        named = ", ".join(f"--{flag}={name}" for flag, name in columns.items())
        raise InputError(f"{named}: user, item and time need a column each")
    directory = Path(dataset)
    if not directory.exists():
        above = next(parent for parent in directory.absolute().parents if parent.exists())
        if not above.is_dir():
            raise InputError(f"--dataset={dataset}: {above} is a file, not a directory; name another directory")
        return
    if not force:
        if (directory / "manifest.json").is_file():
            return
        raise InputError(f"--dataset={dataset} exists already; name another directory or pass --force to replace it")
    from rd_tf.data.dataset_directory import is_dataset

    # --force replaces a dataset; it must not wipe out a directory that somebody named by mistake.
    if not directory.is_dir() or (any(directory.iterdir()) and not is_dataset(directory)):
        raise InputError(
            f"--dataset={dataset} is not a dataset, so --force does not replace it; name another directory"
        )
    for path in input:
        if directory.resolve() in Path(path).resolve().parents:
            raise InputError(f"--input: {path} lies in the directory that --force would replace; move it elsewhere")


def _synthetic(num_users: int, num_items: int, mean_visits: float, seed: int) -> "CheckIns":
    from rd_tf.data.readers.check_ins import CheckIns
    from rd_tf.data.synthetic import synthetic_interactions

    try:
        world = synthetic_interactions(num_users=num_users, num_items=num_items, mean_visits=mean_visits, seed=seed)
    except ValueError as error:
        raise InputError(f"--format=synthetic: {error}") from None
    return CheckIns(
        users=world.users,
        items=world.items - 1,
        timestamps=world.timestamps,
        user_ids=world.user_ids,
        item_ids=world.item_ids,
        time_unit="as the built-in world counts",
        rows_read=len(world),
        skipped={},
        first_skipped="",
    )


def _from_tfds(
    names: list[str], columns: dict[str, str], skip_bad_rows: bool, data_dir: str, manual_dir: str
) -> tuple["CheckIns", dict[str, Any]]:
    """The check-ins of datasets of TensorFlow Datasets, and what the manifest says of the datasets."""
    from rd_tf.quiet_tensorflow import import_quietly

    import_quietly()
    from rd_tf.data.readers.check_ins import join_tables
    from rd_tf.data.readers.tfds_table import read_tfds_table
    from rd_tf.data.tfds.open_builder import SPLIT, open_builder
    from rd_tf.data.tfds.records_sha256 import records_sha256

    builders = [open_builder(name, data_dir, manual_dir) for name in names]
    check_ins = join_tables(
        ((builder.info.full_name, read_tfds_table(builder, columns), columns) for builder in builders), skip_bad_rows
    )
    built = {
        "tfds": [
            {
                "builder": builder.name,
                "config": builder.info.config_name or "",
                "version": str(builder.version),
                "split": SPLIT,
            }
            for builder in builders
        ],
        "input_sha256": [records_sha256(builder) for builder in builders],
    }
    return check_ins, built


def _nothing_left(source: dict[str, Any]) -> str:
    read, skipped, dropped = source["rows_read"], source["skipped_rows"]["count"], source["k_core_rows_dropped"]
    if read == skipped:
        return f"--input: no row can be used ({read} read, {skipped} of them bad); give files that hold check-ins"
    return (
        f"nothing remains: --min_user_items={source['min_user_items']} and --min_item_users={source['min_item_users']}"
        f" drop all {dropped} rows; lower them"
    )


def _summary(manifest: dict[str, Any], dataset: str) -> str:
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


if __name__ == "__main__":
    command_line.run(prepare)
