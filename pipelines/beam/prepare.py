"""python -m pipelines.beam.prepare: what rd_tf.prepare does, for check-ins that no machine can hold."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.beam.files import LOCAL, check_beam, remove_tree
from rd_tf import command_line
from rd_tf.prepare import COLUMNS, READING, WORLD, kept_dataset, prepare, source_of, summary
from rd_tf.storage import InputError, atomic_directory

# The windows and names that rd_tf.prepare writes for a dataset that is there, too.
_OF_PREPARE_ALONE = {"windows", "item_names", "split", "split_by", "sequence_length", "target_length", "short_windows"}


def beam_prepare(**flags: Any) -> dict[str, Any]:
    """Writes the dataset directory that rd_tf.prepare writes, byte for byte, by pipelines of Apache Beam.

    A dataset that was made by the same flags from the same input is kept as it is; --force makes it again.

    Args:
        **flags: values of its flags; those not given have the command's defaults.

    Returns:
        The dataset's manifest.

    Raises:
        InputError: a flag, a file or a row cannot be used.
    """
    flags = command_line.complete(beam_prepare, flags)
    columns = {name: flags[name] for name in COLUMNS}
    input, format, dataset = flags["input"], flags["format"], flags["dataset"]
    runner, beam_options, work_dir = flags["runner"], flags["beam_options"], flags["work_dir"]
    if format not in ("synthetic", "tfds"):
        _refuse_pipes(input)
    if there := kept_dataset(flags):
        return there
    check_beam(runner, beam_options)
    if runner != LOCAL and not work_dir:
        raise InputError(f"--work_dir is empty; name a directory or URL that every worker of --runner={runner} reaches")
    # Imports Beam, which would make --help slow, and may not be installed.
    from pipelines.beam.prepare_steps import FileSource, Filters, Source, Steps, TfdsSource, WorldSource
    from rd_tf.data.readers.check_ins import Reading

    sources: list[Source]
    source, reading = source_of(flags), Reading(**{name: flags[name] for name in READING})
    if format == "synthetic":
        sources = [WorldSource(*(flags[name] for name in WORLD))]
    elif format == "tfds":
        sources = [TfdsSource(name, flags["tfds_data_dir"], columns, reading) for name in input]
        source["tfds"] = _built_datasets(input, flags["tfds_data_dir"], flags["tfds_manual_dir"])
    else:
        sources = [FileSource(path, format, columns, reading) for path in input]
    filters = Filters(flags["duplicates"], flags["min_user_items"], flags["min_item_users"], flags["skip_bad_rows"])
    with atomic_directory(dataset, replace=flags["force"]) as temporary, _work(work_dir, temporary) as work:
        steps = Steps(runner, beam_options, work, flags["bucket_rows"])
        manifest, report = steps.prepare(sources, filters, flags["shards"], source, temporary)
    print(summary(manifest, dataset, report))
    return manifest


beam_prepare.flag_names = [  # type: ignore[attr-defined]
    *(name for name in command_line.parameter_names(prepare) if name not in _OF_PREPARE_ALONE),
    "runner",
    "beam_options",
    "work_dir",
    "bucket_rows",
]


def _refuse_pipes(input: list[str]) -> None:
    from rd_tf.data.readers.files import is_pipe

    for path in input:
        if is_pipe(path):
            raise InputError(
                f"--input: {path} is a pipe, which workers cannot read again; write it to a file and name that"
            )


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
