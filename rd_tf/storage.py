"""Files and directories that appear whole or not at all, a lock on a directory, and the error a user reads."""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import platform
import shutil
import stat
import time
import tokenize
import types
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence: what was received, where (file, line, flag) and what to do. Commands print it after
    `error: ` and exit with 1; every other exception is a bug and keeps its traceback.
    """


Kind = type | types.UnionType
_TEMPORARY = ".tmp-"
# Constants of renameat2(2).
_HERE, _EXCHANGE = -100, 2
_POLL_SECONDS = 0.02


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prefix(path: Path) -> str:
    # On a shared disk a process number means something on its own host only.
    host = zlib.crc32(platform.node().encode())
    return f"{_TEMPORARY}{path.name}-{host:08x}-"


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f"{_prefix(path)}{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Removes a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_whole(path: str | os.PathLike[str]) -> None:
    """Removes a directory in one step: it is renamed first, so that nobody finds a part of it under its name."""
    path = Path(path)
    aside = _temporary_sibling(path)
    os.rename(path, aside)
    # Else a power cut could keep the name and lose the files.
    _fsync(path.parent)
    remove(aside)


def remove_all_leftovers(directory: str | os.PathLike[str]) -> None:
    """Removes every temporary sibling in a directory whose `directory_lock` this process holds.

    Everybody who writes there must hold the lock, so whatever is found belongs to nobody, whichever process or host
    (a container's name changes with every start) left it.
    """
    for path in Path(directory).glob(f"{_TEMPORARY}*"):
        remove(path)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Removes what a killed process left behind while it wrote `path`."""
    path = Path(path)
    prefix = _prefix(path)
    for sibling in path.parent.glob(f"{_TEMPORARY}*"):
        pid = sibling.name.removeprefix(prefix).split("-")[0]
        if sibling.name.startswith(prefix) and pid.isdigit() and not _is_alive(int(pid)):
            remove(sibling)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write; the file appears, fsynced, when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = _temporary_sibling(path)
    # Keras insists on the ending of a weights file, so the temporary name keeps every suffix.
    temporary = temporary.with_name(temporary.name + "".join(path.suffixes))
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except BaseException:
        remove(temporary)
        raise


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """Yields a temporary directory to fill; it appears under `path`, fsynced, when the block ends without an error.

    Raises:
        InputError: `path` exists and `replace` is false.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise InputError(f"{path} exists already; name another directory or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        _fsync_tree(temporary)
        if path.exists() and not replace:
            raise InputError(f"{path} was made by another process meanwhile; name another directory")
        _put(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def replace_directory(new: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Puts a finished directory in the place of one that is there, in one step, and removes the old one."""
    _fsync_tree(Path(new))
    _put(Path(new), Path(path))


def _fsync_tree(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _fsync(path)


def _put(new: Path, path: Path) -> None:
    if path.exists():
        _exchange(new, path)
    else:
        os.rename(new, path)
    _fsync(path.parent)
    remove(new)


def _exchange(one: Path, other: Path) -> None:
    """Swaps two paths, in one step where the file system can, so that `other` is never missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2") and not libc.renameat2(
        _HERE, ctypes.c_char_p(paths[0]), _HERE, ctypes.c_char_p(paths[1]), _EXCHANGE
    ):
        return
    aside = _temporary_sibling(other)
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def json_text(value: Any) -> str:
    """What `write_json` writes; a NaN is refused."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes indented JSON, whole or not at all; a NaN is refused."""
    write_text(path, json_text(value))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads JSON; a NaN, an infinity and a number that would become one are refused, as nothing here writes them.

    Raises:
        InputError: the file is missing, cannot be read, or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except NotADirectoryError:
        raise InputError(f"{path.parent} is a file, not a directory") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); mend it or make it again") from None
    except RecursionError:
        raise InputError(f"{path} is damaged (nested too deeply); make it again") from None
    # Not JSON, not UTF-8, or a whole number of thousands of digits.
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); make it again") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


def read_manifest(path: str | os.PathLike[str], required: Mapping[str, Kind]) -> dict[str, Any]:
    """Reads a JSON object and checks that it holds what its readers rely on.

    Args:
        path: the file.
        required: dotted name -> type of every value that must be there.

    Raises:
        InputError: the file is missing, not JSON, no object, or lacks a value.
    """
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is damaged or of another kind (no JSON object); name another one or make it again")
    require(manifest, required, path)
    return manifest


def require(manifest: dict[str, Any], required: Mapping[str, Kind], path: str | os.PathLike[str]) -> None:
    """Checks that a JSON object holds what its readers rely on; `required` as in `read_manifest`.

    Raises:
        InputError: it lacks a value; the message names the path.
    """
    for name, kind in required.items():
        value: Any = manifest
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        # True is an int to Python.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(
                f"{path} is damaged or of another kind (no usable {name!r}); name another one or make it again"
            )


def json_sha256(value: Any) -> str:
    """SHA-256 (hex) of JSON values, whatever the order of their names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# NumPy's own headers have a hundred letters or two.
_LONGEST_HEADER = 10_000


def open_npy(path: str | os.PathLike[str]) -> "np.ndarray":
    """Opens an array that `np.save` wrote, as a read-only memory map.

    Not np.load(), which opens zip archives, too, and believes what a header says of its length and of the array's.

    Raises:
        ValueError: the header is damaged, or the file has not the size that it says.
        OSError: the file cannot be read.
    """
    # Imported here: --help needs no NumPy.
    import numpy as np
    from numpy.lib import format as npy_format

    with open(path, "rb") as file:
        head = io.BytesIO(file.read(_LONGEST_HEADER))
        size = os.fstat(file.fileno()).st_size
    try:
        version = npy_format.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its header is of version {version}")
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran_order, dtype = read(head)
    # NumPy reads the header as a Python literal.
    except (ValueError, SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from None
    if dtype.hasobject or fortran_order or min(shape, default=0) < 0:
        raise ValueError(f"{path} holds an array of another kind")
    if head.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{path} has {size:,} bytes, which an array {shape} of {dtype} has not")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", head.tell(), shape)


@contextlib.contextmanager
def directory_lock(directory: str | os.PathLike[str], wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds a directory for this process; the kernel lets go of it however the process ends.

    Args:
        directory: made where it is missing.
        wait_seconds: how long to wait for another process that holds it.

    Raises:
        InputError: another process holds it.
    """
    path = Path(directory) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{directory} is a file, not a directory; name a directory") from None
    with _open_lock(path) as file:
        latest = time.monotonic() + wait_seconds
        while not _take(file):
            if time.monotonic() >= latest:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise InputError(f"{directory} is in use by process {holder}; wait for it or name another one")
            time.sleep(_POLL_SECONDS)
        file.seek(0)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _open_lock(path: Path) -> IO[str]:
    # Through a link it would empty whatever file that names.
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path} is a symbolic link, which no command makes; remove it") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is no plain file; remove it")
    return open(descriptor, "r+", encoding="utf-8")


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
