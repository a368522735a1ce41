"""What both preparations share: the checks of their flags, what the manifest tells of the origin, the summary."""

from pathlib import Path
from typing import Any

from rd_tf.storage import InputError

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
        if source.get(name, value) != value:
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
    print(f"dataset kept: {directory}", flush=True)
    return manifest


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
