"""Versions of a served model, which appear and vanish whole."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from rd_tf.storage import InputError, atomic_directory, directory_lock, remove_all_leftovers, remove_whole, write_text

# Holds the highest number ever published: a server that still has 7 loaded would not notice another 7.
LAST_VERSION_FILE = ".last_version"
# tensorflow_model_server reads a version as int64 and passes over larger ones.
_HIGHEST = 2**63 - 1


class NothingNew(Exception):
    """Raised in the block of `publishing` by one who finds that the highest version is the one in the making."""


@dataclasses.dataclass(frozen=True)
class NewVersion:
    """A version that is being made.

    Attributes:
        number: its number.
        directory: where it is to be filled, a sibling of `path` whose name is no number.
        path: where it appears.
    """

    number: int
    directory: Path
    path: Path


def versions(directory: str | os.PathLike[str]) -> list[Path]:
    """The versions of a served model as tensorflow_model_server sees them, ascending; none without a directory."""
    return [path for _, path in _numbered(Path(directory)) if path.is_dir()]


@contextlib.contextmanager
def publishing(directory: str | os.PathLike[str], keep_versions: int = 0) -> Iterator[NewVersion]:
    """Yields a directory to fill; it appears as the next version, fsynced, when the block ends without an error.

    After an error, or when the process is killed, the served model has the versions it had before. What a killed
    process left behind is removed by the next one. A number is never used twice, though its version is removed. After
    `NothingNew`, which goes no further, no version appears, and old ones are removed as if one had.

    Args:
        directory: the served model's directory, made where it is missing.
        keep_versions: how many of the highest versions stay, the new one included; 0 keeps all.

    Raises:
        InputError: another process publishes there, the mark of the last version is damaged, a higher version appeared
            meanwhile, or an old version cannot be removed (the new one then stays).
        ValueError: `keep_versions` is negative.
    """
    if keep_versions < 0:
        raise ValueError(f"keep_versions must be 0 or more; received {keep_versions}")
    directory = Path(directory)
    with directory_lock(directory):
        remove_all_leftovers(directory)
        number = 1 + max(_read_mark(directory), _highest(directory))
        path = directory / str(number)
        with contextlib.suppress(NothingNew), atomic_directory(path) as temporary:
            yield NewVersion(number, temporary, path)
            if _highest(directory) >= number:
                raise InputError(
                    f"{directory} got version {_highest(directory)} while {number} was made; publish again"
                )
            # Before the version appears: a number that is marked and not used is harmless.
            write_text(directory / LAST_VERSION_FILE, f"{number}\n")
        if keep_versions:
            _remove_all_but(versions(directory), keep_versions)


def _remove_all_but(found: list[Path], kept: int) -> None:
    for path in found[:-kept]:
        try:
            remove_whole(path)
        except OSError as error:
            raise InputError(
                f"{found[-1]} is published, but the old {path} cannot be removed ({error.strerror}); remove it yourself"
            ) from error


def _highest(directory: Path) -> int:
    return max((number for number, _ in _numbered(directory)), default=0)


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:
        return []
    found = [(int(path.name), path) for path in paths if path.name.isascii() and path.name.isdigit()]
    return sorted((number, path) for number, path in found if number <= _HIGHEST)


def _read_mark(directory: Path) -> int:
    path = directory / LAST_VERSION_FILE
    try:
        number = int(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    except ValueError:
        number = -1
    if not 0 <= number < _HIGHEST:
        raise InputError(f"{path} is damaged; write the number of the last version that was published there into it")
    return number
