"""What can be said of the flags of a preparation before anything is read."""

from pathlib import Path

from rd_tf.errors import InputError


def check_preparation(input: list[str], format: str, columns: dict[str, str], dataset: str, force: bool) -> None:
    """Refuses flags that do not fit together, and a `dataset` that may not be written.

    Args:
        input: files, or names of datasets.
        format: their layout.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names.
        dataset: the directory to write.
        force: whether a dataset may be replaced.

    Raises:
        InputError: one of them cannot be used.
    """
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
