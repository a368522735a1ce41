"""What both Beam commands share: runners and their options, files anywhere, tables between stages.

Nothing here imports Beam before it is needed: it may not be installed, which `check_beam` says in one sentence.
"""

import contextlib
import io
import json
import logging
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rd_tf.storage import InputError, remove

if TYPE_CHECKING:
    import apache_beam as beam

LOCAL = "DirectRunner"
# Runners behind a job server take options that Beam does not know; these two take none.
_KNOW_ALL_OPTIONS = (LOCAL, "DataflowRunner")
# Beam adds to a worker's exception where it came from; an exception from another process arrives as a text.
_WHERE = re.compile(r" \[while running .*", re.DOTALL)
_IN_A_TEXT = re.compile(r"rd_tf\.storage\.InputError: (.*?)(?: \[while running|\\n|\n|$)")
_TEMPORARY = ".tmp-"
# Beam would otherwise compress by the file's name.
_PLAIN = "uncompressed"
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


def check_beam(runner: str, beam_options: Sequence[str]) -> None:
    """Checks that Beam is installed and can make sense of the flags.

    Raises:
        InputError: it is not, or cannot.
    """
    # At its import Beam warns of clients of Google's cloud that are not installed, even where nobody wants them.
    logging.disable(logging.WARNING)
    try:
        import apache_beam
    except ImportError:
        raise InputError("Apache Beam is not installed; pip install -r requirements-beam.txt") from None
    finally:
        logging.disable(logging.NOTSET)
    from apache_beam.options.pipeline_options import PipelineOptions

    for option in beam_options:
        if not option or option.startswith("-") or option.startswith("runner="):
            raise InputError(f"--beam_options: {option!r} is no name=value, such as temp_location=gs://bucket/tmp")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            PipelineOptions([f"--{option}" for option in beam_options]).get_all_options()
    except SystemExit:
        last = complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise InputError(f"--beam_options={','.join(beam_options)} cannot be used ({last})") from None
    try:
        apache_beam.runners.create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--runner={runner} cannot be used ({first}); try {LOCAL}") from None


def check_options(runner: str, beam_options: Sequence[str]) -> None:
    """Checks that a runner knows these options and lacks none, before anything is replaced.

    Args:
        runner: Beam's name for it.
        beam_options: name=value or the bare name of a switch, as `check_beam` lets them pass.

    Raises:
        InputError: an option is unknown or missing.
    """
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions

    given = f"--runner={runner} --beam_options={','.join(beam_options)}"
    # Beam logs a warning of unknown options, which the sentence below replaces.
    logging.disable(logging.WARNING)
    try:
        options = PipelineOptions([f"--runner={runner}", *(f"--{option}" for option in beam_options)])
        unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
        # Runners check what they need when a pipeline is made.
        Pipeline(options=options)
    except ValueError as error:
        raise InputError(f"{given} cannot be used ({error})") from None
    finally:
        logging.disable(logging.NOTSET)
    if unknown and runner in _KNOW_ALL_OPTIONS:
        raise InputError(f"{given} cannot be used ({runner} has no option {', '.join(sorted(unknown))})")


def run_pipeline(build: Callable[["beam.Pipeline"], Any], runner: str, beam_options: Sequence[str]) -> None:
    """Builds a pipeline and waits until it is done.

    Args:
        build: puts the transforms into the pipeline.
        runner: Beam's name for it.
        beam_options: name=value or the bare name of a switch.

    Raises:
        RuntimeError: the pipeline failed.
    """
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.runner import PipelineState

    options = PipelineOptions([f"--{option}" for option in beam_options])
    # Beam's DirectRunner would try Prism first, a Go program that it downloads; this is the one it falls back to.
    pipeline = apache_beam.Pipeline(runner=FnApiRunner() if runner == LOCAL else runner, options=options)
    build(pipeline)
    state = pipeline.run().wait_until_finish()
    if state not in (PipelineState.DONE, None):
        raise RuntimeError(f"the pipeline ended as {state} on {runner}")


@contextlib.contextmanager
def workers_sentences() -> Iterator[None]:
    """Turns a failed pipeline into the InputError that a worker raised, if one did."""

    def is_no_input_error(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], InputError))

    # Beam would log the worker's traceback too.
    logging.getLogger("apache_beam.runners.common").addFilter(is_no_input_error)
    try:
        yield
    except InputError as error:
        raise InputError(_WHERE.sub("", str(error))) from None
    except Exception as error:
        found = _IN_A_TEXT.findall(str(error))
        if not found:
            raise
        raise InputError(found[-1]) from None


def file_systems() -> Any:
    """Beam's `FileSystems`: files on this machine, gs://, s3://, hdfs://. Their errors are OSErrors."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def is_remote(path: str) -> bool:
    """Whether a path names its file system, as gs://bucket/folder does."""
    return file_systems().get_scheme(path) is not None


@contextlib.contextmanager
def new_file(directory: str, name: str) -> Iterator[IO[bytes]]:
    """Opens a file for writing bytes; it appears under its name when the block ends without an error.

    Where workers write the same file at the same time, that of the last one to finish stays.
    """
    files = file_systems()
    path = files.join(directory, name)
    temporary = files.join(directory, f"{_TEMPORARY}{uuid.uuid4().hex}-{name}")
    try:
        with files.create(temporary) as file:
            yield file
        # Some remote file systems refuse to rename onto a file that is there.
        if is_remote(path) and files.exists(path):
            files.delete([path])
        files.rename([temporary], [path])
    except BaseException:
        with contextlib.suppress(OSError):
            files.delete([temporary])
        raise


@contextlib.contextmanager
def local_files(directory: str, names: Sequence[str]) -> Iterator[Path]:
    """Some files of a directory, on this machine; those of a remote one are copied, and removed afterwards.

    Yields:
        A directory that holds these files; a local one as it is.

    Raises:
        InputError: a remote file is missing or cannot be read.
    """
    if not is_remote(directory):
        yield Path(directory)
        return
    files = file_systems()
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            remote = files.join(directory, name)
            try:
                with files.open(remote) as source, open(Path(scratch) / name, "wb") as target:
                    shutil.copyfileobj(source, target)
            except (OSError, ValueError) as error:
                raise InputError(f"{remote} cannot be read ({error}); name another path or mend this one") from None
        yield Path(scratch)


def names_in(directory: str) -> list[str]:
    """Names of all files in a remote directory and its folders, but for what killed writers left; none without it.

    Raises:
        InputError: the file system cannot be reached.
    """
    return [name for name in _all_names_in(directory) if not name.startswith(_TEMPORARY)]


def _all_names_in(directory: str) -> list[str]:
    begin = file_systems().join(directory, "")
    try:
        (found,) = file_systems().match([f"{begin}**"])
    except (OSError, ValueError) as error:
        raise InputError(f"{directory} cannot be read ({error}); name another path or mend this one") from None
    return sorted(file.path.removeprefix(begin) for file in found.metadata_list)


def empty_directory(directory: str, first: str) -> None:
    """Removes all files of a remote directory, the one named `first` before the others."""
    names = sorted(_all_names_in(directory), key=lambda name: name != first)
    for part in (names[:1], names[1:]):
        if part:
            file_systems().delete([file_systems().join(directory, name) for name in part])


def remove_tree(directory: str) -> None:
    """Removes a directory with all in it, if it is there."""
    if "://" not in directory:
        remove(Path(directory))
        return
    try:
        # A bucket in a cloud has no directories: Beam takes a name for one where it ends in a slash.
        file_systems().delete([f"{directory}/"])
    except OSError as error:
        logging.getLogger(__name__).warning("intermediate files are left in %s: %s", directory, error)


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file."""
    with file_systems().create(path, compression_type=_PLAIN) as file:
        file.write(data)


def read_bytes(path: str) -> bytes:
    """Reads a file."""
    with file_systems().open(path, compression_type=_PLAIN) as file:
        return bytes(file.read())


def read_json(path: str) -> Any:
    """Reads a JSON file."""
    return json.loads(read_bytes(path))


def write_table(path: str, table: pa.Table) -> None:
    """Writes a table as an Arrow file."""
    with (
        file_systems().create(path, compression_type=_PLAIN) as file,
        pa.ipc.new_file(file, table.schema, options=_COMPRESSED) as writer,
    ):
        writer.write_table(table)


def read_table(path: str, columns: Sequence[str] = ()) -> pa.Table:
    """Reads an Arrow file, or some of its columns."""
    with file_systems().open(path, compression_type=_PLAIN) as file:
        reader = pa.ipc.open_file(file)
        if columns:
            fields = [reader.schema.get_field_index(name) for name in columns]
            file.seek(0)
            reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
        return reader.read_all()


def pack(**columns: np.ndarray | pa.Array) -> bytes:
    """Columns of one length as an element: compressed Arrow, no pickle."""
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpack(elements: Iterable[bytes]) -> pa.Table:
    """Packed tables, one after another, as one; one at least."""
    return pa.concat_tables([pa.ipc.open_stream(element).read_all() for element in elements])


def split(buckets: np.ndarray, **columns: np.ndarray | pa.Array) -> Iterator[tuple[int, bytes]]:
    """Packs the rows of each bucket, in their order.

    Args:
        buckets: `[rows]` whole numbers from 0.
        columns: `[rows]` each.

    Yields:
        `(bucket, packed rows)` of every bucket that has any.
    """
    if not len(buckets):
        return
    order = np.argsort(buckets, kind="stable")
    starts = np.flatnonzero(np.diff(buckets[order], prepend=-1))
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        rows = order[begin:end]
        chosen = {
            name: column[rows] if isinstance(column, np.ndarray) else column.take(pa.array(rows))
            for name, column in columns.items()
        }
        yield int(buckets[rows[0]]), pack(**chosen)
