"""python -m pipelines.beam.prepare: what rd_tf.prepare does, for check-ins that no machine can hold."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.beam.files import LOCAL, check_beam, remove_tree
from rd_tf import command_line
from rd_tf.data.preparation import COLUMNS, kept_dataset, source_of, summary
from rd_tf.storage import InputError, atomic_directory


def beam_prepare(
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
    runner: str,
    beam_options: list[str],
    work_dir: str,
    bucket_rows: int,
) -> dict[str, Any]:
    """Writes the dataset directory that rd_tf.prepare writes, byte for byte, by pipelines of Apache Beam.

    A dataset that was made by the same flags from the same input is kept as it is; --force makes it again.

    Returns:
        The dataset's manifest.

    Raises:
        InputError: a flag, a file or a row cannot be used.
    """
    flags = dict(locals())
    columns = {name: flags[name] for name in COLUMNS}
    if there := kept_dataset(flags):
        return there
    check_beam(runner, beam_options)
    if runner != LOCAL and not work_dir:
        raise InputError(f"--work_dir is empty; name a directory or URL that every worker of --runner={runner} reaches")
    # Imports Beam, which would make --help slow, and may not be installed.
    from pipelines.beam.prepare_steps import FileSource, Filters, Source, Steps, TfdsSource, WorldSource

    sources: list[Source]
    source = source_of(flags)
    if format == "synthetic":
        sources = [WorldSource(synthetic_users, synthetic_items, synthetic_visits, seed)]
    elif format == "tfds":
        sources = [TfdsSource(name, tfds_data_dir, columns) for name in input]
        source["tfds"] = _built_datasets(input, tfds_data_dir, tfds_manual_dir)
    else:
        sources = [FileSource(path, format, columns) for path in input]
    filters = Filters(duplicates, min_user_items, min_item_users, skip_bad_rows)
    with atomic_directory(dataset, replace=force) as temporary, _work(work_dir, temporary) as work:
        steps = Steps(runner, beam_options, work, bucket_rows)
        manifest = steps.prepare(sources, filters, shards, source, temporary)
    print(summary(manifest, dataset))
    return manifest


def _built_datasets(names: list[str], data_dir: str, manual_dir: str) -> list[dict[str, Any]]:
    """What the manifest says of datasets of TensorFlow Datasets; missing ones are built here, not by every worker."""
    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.data.readers.tfds import describe_builder, open_builder

    return [describe_builder(open_builder(name, data_dir, manual_dir)) for name in names]


@contextlib.contextmanager
def _work(work_dir: str, temporary: Path) -> Iterator[str]:
    """A new directory for intermediate files, removed in the end; one inside of `temporary` goes with it."""
    local = str(temporary.absolute() / "work")
    work = f"{work_dir.rstrip('/')}/rd_tf-{uuid.uuid4().hex}" if work_dir else local
    try:
        yield work
    finally:
        remove_tree(work)


if __name__ == "__main__":
    command_line.run(beam_prepare)
