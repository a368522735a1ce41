"""Prepares check-ins: python -m rd_tf.prepare --input=checkins.csv --dataset=data/mine."""

import contextlib
import csv
import functools
import gzip
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rd_tf import command_line
from rd_tf.flag_definitions import protocol_of
from rd_tf.storage import InputError, remove_leftovers

if TYPE_CHECKING:
    from rd_tf.data.readers.check_ins import CheckIns, InputReport, Reading

COLUMNS = ("user_column", "item_column", "time_column")
# How files are read, with what is meant where nothing is said. Manifests hold what differs from it.
READING: dict[str, Any] = {
    "separator": "",
    "columns": [],
    "skip_lines": 0,
    "quote": "auto",
    "escape": "none",
    "multiline_fields": False,
    "encoding": "",
    "time_format": "",
    "value_column": "rating",
    "min_rating": "",
}
_READING_OF_TFDS = ("time_format", "value_column", "min_rating")
WORLD = ("synthetic_users", "synthetic_items", "synthetic_visits", "seed")


def source_of(flags: dict[str, Any]) -> dict[str, Any]:
    """What the manifest's "source" holds of the flags that say what is read."""
    read = {"synthetic": WORLD, "tfds": (*COLUMNS, "tfds_data_dir")}.get(flags["format"], COLUMNS)
    return {name: flags[name] for name in ("input", "format", *read)} | _told(flags)


def _told(flags: dict[str, Any]) -> dict[str, Any]:
    told = {name: flags[name] for name, usual in READING.items() if flags[name] != usual}
    if not flags["min_rating"]:
        told.pop("value_column", None)
    return told


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
    below_min_rating: int | None = None,
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
        below_min_rating: rows; None where --min_rating is not given.
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
        **({} if below_min_rating is None else {"below_min_rating": below_min_rating}),
    }


def nothing_left(source: dict[str, Any]) -> str:
    """What to say where no row remains."""
    read, skipped, dropped = source["rows_read"], source["skipped_rows"]["count"], source["k_core_rows_dropped"]
    if read == skipped:
        return f"--input: no row can be used ({read} read, {skipped} of them bad); give files that hold check-ins"
    if read == skipped + source.get("below_min_rating", 0):
        return f"nothing remains: no row has a rating of --min_rating={source['min_rating']} or more; lower it"
    return (
        f"nothing remains: --min_user_items={source['min_user_items']} and --min_item_users={source['min_item_users']}"
        f" drop all {dropped} rows; lower them"
    )


def summary(manifest: dict[str, Any], dataset: str, report: "InputReport") -> str:
    """What a preparation prints in the end."""
    source = manifest["source"]
    skipped = source["skipped_rows"]
    shown = 10
    lines = [f"input               {words}" for words in report.inputs[:shown]]
    if len(report.inputs) > shown:
        lines.append(f"input               and {len(report.inputs) - shown:,} more")
    lines += [f"warning             {sentence}" for sentence in report.warnings]
    if report.lines:
        count = report.lines
        other = f" + {count.continued:,} continued" if count.continued else ""
        lines.append(
            f"lines               {count.total:,} = {count.head:,} header or skipped + {count.blank:,} blank{other}"
            f" + {count.records:,} with rows"
        )
    lines += [f"rows read           {source['rows_read']:,}", f"bad rows skipped    {skipped['count']:,}"]
    lines += [f"  {reason}: {count:,}" for reason, count in skipped["reasons"].items()]
    if "first" in skipped:
        lines.append(f"  the first: {skipped['first']}")
    below = source.get("below_min_rating", 0)
    if "below_min_rating" in source:
        lines.append(f"below --min_rating  {below:,} ({source['min_rating']})")
    lines += [
        f"duplicates dropped  {source['duplicates_dropped']:,} ({source['duplicates']})",
        f"k-core              {source['k_core_rounds']} rounds, {source['k_core_rows_dropped']:,} rows dropped",
        f"users               {manifest['users']:,}",
        f"items               {manifest['items']:,}",
        f"interactions        {manifest['interactions']:,}",
        f"sum                 {source['rows_read']:,} rows = {skipped['count']:,} bad + {below:,} of low rating"
        f" + {source['duplicates_dropped']:,} duplicates + {source['k_core_rows_dropped']:,} by k-core"
        f" + {manifest['interactions']:,} interactions",
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
    source = {**READING, **manifest["source"], "shards": len(manifest.get("shards", []))}
    if not source["min_rating"] and not flags["min_rating"]:
        del source["value_column"]
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
    means_nothing = {"synthetic": set(READING), "tfds": READING.keys() - {*_READING_OF_TFDS}}.get(format, set())
    for name in _told(flags).keys() & means_nothing:
        raise InputError(f"--{name} means nothing with --format={format}; leave it out")
    for name in ("user_column", "item_column"):
        if not flags[name]:
            raise InputError(f"--{name} is empty; name the column")
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
    separator: str = "",
    columns: Sequence[str] = (),
    skip_lines: int = 0,
    quote: str = "auto",
    escape: str = "none",
    multiline_fields: bool = False,
    encoding: str = "",
    time_format: str = "",
    value_column: str = "rating",
    min_rating: str = "",
    windows: str = "",
    split: str = "test",
    split_by: str = "auto",
    sequence_length: int = 5,
    target_length: int = 1,
    short_windows: str = "auto",
    item_names: str = "",
) -> dict[str, Any]:
    """Reads check-ins, drops repeated visits, takes the k-core, writes a dataset directory and prints a summary.

    A dataset that was made by the same flags from the same input is kept as it is; --force makes it again.
    --windows=FILE also writes the training windows of --split, with raw ids, for systems that make lists for windows;
    for a dataset that is there, --dataset and --windows are enough. They are those of a student with the same
    --short_windows; no ranker is named here, so auto is off. --item_names=FILE keeps names of the items with the
    dataset, one that is there, too.

    Returns:
        The dataset's manifest.

    Raises:
        InputError: a flag, a file or a row cannot be used.
    """
    flags = {**locals(), "columns": list(columns)}
    write_windows = functools.partial(
        _write_windows, windows, dataset, split, split_by, sequence_length, target_length, short_windows == "on"
    )
    if windows and not windows.endswith(".parquet"):
        raise InputError(f"--windows={windows} has to end in .parquet; name such a file")
    titles = read_titles(item_names) if item_names else {}
    if (windows or item_names) and not input and format == "auto" and not force and Path(dataset).exists():
        from rd_tf.data.dataset import load_manifest

        manifest = load_manifest(dataset)
        _write_item_names(item_names, titles, dataset)
        write_windows()
        return manifest
    with _input_copied(flags) as flags:
        if there := kept_dataset(flags):
            _write_item_names(item_names, titles, dataset)
            write_windows()
            return there
        manifest = _make(flags, titles)
    _write_item_names(item_names, titles, dataset)
    write_windows()
    return manifest


@contextlib.contextmanager
def _input_copied(flags: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The flags with pipes among the input copied to files."""
    _check_flags(flags)
    if flags["format"] in ("synthetic", "tfds"):
        yield flags
        return
    from rd_tf.data.readers.files import piped_inputs_copied

    with piped_inputs_copied(flags["input"]) as paths:
        yield {**flags, "input": paths}


def _make(flags: dict[str, Any], titles: dict[str, str]) -> dict[str, Any]:
    input, format, dataset = flags["input"], flags["format"], flags["dataset"]
    columns, skip_bad_rows = {name: flags[name] for name in COLUMNS}, flags["skip_bad_rows"]
    # Reading takes pandas and pyarrow, which would make --help slow.
    from rd_tf.data.dataset import save_dataset
    from rd_tf.data.interactions import drop_duplicates, k_core, to_interactions
    from rd_tf.data.readers.check_ins import Reading, read_check_ins
    from rd_tf.data.synthetic import synthetic_check_ins

    source, reading = source_of(flags), Reading(**{name: flags[name] for name in READING})
    if format == "synthetic":
        check_ins = synthetic_check_ins(**{name: flags[name] for name in WORLD})
    elif format == "tfds":
        check_ins, built = _from_tfds(flags, columns, reading)
        source |= built
    else:
        from rd_tf.data.readers.files import file_sha256

        check_ins = read_check_ins(input, format, columns, skip_bad_rows, reading)
        source["input_sha256"] = [file_sha256(path) for path in input]
    users, items, timestamps = check_ins.users, check_ins.items, check_ins.timestamps
    kept = drop_duplicates(users, items, timestamps, flags["duplicates"])
    users, items, timestamps = users[kept], items[kept], timestamps[kept]
    core = k_core(users, items, flags["min_user_items"], flags["min_item_users"])
    interactions = to_interactions(
        users[core.keep], items[core.keep], timestamps[core.keep], check_ins.user_ids, check_ins.item_ids
    )
    source |= filters_of(
        time_unit=check_ins.time_unit,
        **{name: flags[name] for name in ("duplicates", "min_user_items", "min_item_users", "skip_bad_rows")},
        rows_read=check_ins.rows_read,
        skipped=check_ins.skipped,
        first_skipped=check_ins.first_skipped,
        duplicates_dropped=int(len(kept) - kept.sum()),
        k_core_rounds=core.rounds,
        k_core_rows_dropped=int(len(core.keep) - core.keep.sum()),
        below_min_rating=check_ins.report.below_min_rating if reading.min_rating else None,
    )
    if not len(interactions):
        raise InputError(nothing_left(source))
    if flags["item_names"]:
        names_of(interactions.item_ids, titles, flags["item_names"])
    manifest = save_dataset(interactions, dataset, source, replace=flags["force"], shards=flags["shards"])
    print(summary(manifest, dataset, check_ins.report))
    return manifest


def _write_windows(
    path: str,
    dataset: str,
    split: str,
    split_by: str,
    sequence_length: int,
    target_length: int,
    short_windows: bool,
) -> None:
    if not path:
        return
    from rd_tf.data.windows import open_dataset
    from rd_tf.teacher.lists import write_windows

    data = open_dataset(dataset).split(protocol_of(split, split_by).name)
    count = write_windows(path, data, sequence_length, target_length, short_windows)
    print(f"windows             {count:,} in {path}")


def read_titles(path: str) -> dict[str, str]:
    """Reads --item_names.

    Args:
        path: UTF-8 text; the first two fields of a line are an item's id and its title.

    Returns:
        Id -> title; of an id that stands twice the first title.

    Raises:
        InputError: the file cannot be read, or a line has no title or another number of fields than the first.
    """
    named = f"--item_names={path}"
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{named} is not UTF-8 (byte {error.start}); convert it, with iconv for example") from None
    except (OSError, EOFError) as error:
        raise InputError(f"{named} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    titles: dict[str, str] = {}
    fields = 0
    for line, row in _rows(text, named):
        fields = fields or len(row)
        if len(row) < 2 or len(row) != fields:
            wanted = f"{fields} as in the first line" if fields > 1 else "an id and a title"
            raise InputError(f"{named}, line {line}: it has {len(row)} fields, not {wanted}; quote what holds a comma")
        if "\n" in row[1]:
            raise InputError(f"{named}, line {line}: a title goes on over the line's end; close its quotes")
        # A terminal would obey control characters.
        title = "".join(letter if letter.isprintable() else " " for letter in row[1])
        titles.setdefault(row[0].strip(), title.strip())
    if not titles:
        raise InputError(f"{named} is empty; write a line 'id,title' for every item")
    return titles


def _rows(text: str, named: str) -> Iterator[tuple[int, list[str]]]:
    """The number of every line that is not empty, and its fields."""
    first = re.sub(r'^"[^"]*"', "", text.lstrip().partition("\n")[0])
    found = re.search(r"::|[\t|;,]", first)
    if found and found[0] in ",;":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=found[0], strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise InputError(f"{named}, line {reader.line_num}: {error}; mend its quotes") from None
        return
    for line, row in enumerate(text.split("\n"), 1):
        if row.strip():
            yield line, row.rstrip("\r").split(found[0] if found else ",")


def names_of(item_ids: Sequence[str], titles: dict[str, str], path: str) -> list[str]:
    """A title for every item, "" where there is none.

    Raises:
        InputError: no item has one.
    """
    names = [titles.get(item, "") for item in item_ids]
    if not any(names):
        shown = next(reversed(titles))
        raise InputError(
            f"--item_names={path}: none of its {len(titles):,} ids, such as {shown!r}, is an item of the dataset, "
            f"such as {item_ids[0]!r}; the first field of a line has to be the id, the second the title"
        )
    return names


def _write_item_names(path: str, titles: dict[str, str], dataset: str) -> None:
    if not path:
        return
    from rd_tf.data.dataset import ITEM_NAMES, load_dataset
    from rd_tf.storage import write_text

    names = names_of(load_dataset(dataset).item_ids, titles, path)
    write_text(Path(dataset) / ITEM_NAMES, "".join(f"{name}\n" for name in names))
    print(f"item names          {sum(map(bool, names)):,} of {len(names):,} items have one")


def _from_tfds(flags: dict[str, Any], columns: dict[str, str], reading: "Reading") -> tuple["CheckIns", dict[str, Any]]:
    """The check-ins of datasets of TensorFlow Datasets, and what the manifest says of the datasets."""
    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.data.readers.check_ins import join_tables
    from rd_tf.data.readers.tfds import describe_builder, open_builder, read_tfds_table, records_sha256

    builders = [open_builder(name, flags["tfds_data_dir"], flags["tfds_manual_dir"]) for name in flags["input"]]
    columns = reading.read_columns(columns)
    check_ins = join_tables(
        ((builder.info.full_name, read_tfds_table(builder, columns), columns) for builder in builders),
        flags["skip_bad_rows"],
        reading,
    )
    built = {
        "tfds": [describe_builder(builder) for builder in builders],
        "input_sha256": [records_sha256(builder) for builder in builders],
    }
    return check_ins, built


if __name__ == "__main__":
    command_line.run(prepare)
