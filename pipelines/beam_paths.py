"""Files of Beam jobs, on this machine or wherever Beam has a file system: gs://, s3://, hdfs://."""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from rd_tf.storage import InputError

_TEMPORARY = ".tmp-"


def is_remote(path: str) -> bool:
    """Whether a path names its file system, as gs://bucket/folder does."""
    return FileSystems.get_scheme(path) is not None


@contextlib.contextmanager
def new_file(directory: str, name: str) -> Iterator[IO[bytes]]:
    """Opens a file for writing bytes; it appears under its name when the block ends without an error.

    Workers that write the same file at the same time do not meet: the last one to finish wins.
    """
    path = FileSystems.join(directory, name)
    temporary = FileSystems.join(directory, f"{_TEMPORARY}{uuid.uuid4().hex}-{name}")
    try:
        with FileSystems.create(temporary) as file:
            yield file
        # Some file systems put no file in another one's place.
        if is_remote(path) and FileSystems.exists(path):
            FileSystems.delete([path])
        FileSystems.rename([temporary], [path])
    except BaseException:
        with contextlib.suppress(BeamIOError):
            FileSystems.delete([temporary])
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
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            _copy(FileSystems.join(directory, name), Path(scratch) / name)
        yield Path(scratch)


def _copy(remote: str, local: Path) -> None:
    try:
        with FileSystems.open(remote) as source, open(local, "wb") as target:
            shutil.copyfileobj(source, target)
    except (BeamIOError, OSError, ValueError) as error:
        raise InputError(f"{remote} cannot be read ({error}); name another path or mend this one") from None


def names_in(directory: str) -> list[str]:
    """Names of all files in a remote directory and its folders, but for what killed writers left; none without it.

    Raises:
        InputError: the file system cannot be reached.
    """
    return [name for name in _all_names_in(directory) if not name.startswith(_TEMPORARY)]


def _all_names_in(directory: str) -> list[str]:
    begin = FileSystems.join(directory, "")
    try:
        (found,) = FileSystems.match([f"{begin}**"])
    except (BeamIOError, OSError, ValueError) as error:
        raise InputError(f"{directory} cannot be read ({error}); name another path or mend this one") from None
    return sorted(file.path.removeprefix(begin) for file in found.metadata_list)


def empty_directory(directory: str, first: str) -> None:
    """Removes all files of a remote directory, the one named `first` before the others."""
    names = sorted(_all_names_in(directory), key=lambda name: name != first)
    for part in (names[:1], names[1:]):
        if part:
            FileSystems.delete([FileSystems.join(directory, name) for name in part])
