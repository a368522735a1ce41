"""The fingerprint of windows that are never in memory together."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable

import numpy as np

from rd_tf.data.windows import Windows

_CHUNK = 2**22


def windows_fingerprint(parts: Iterable[Windows], sequence_length: int, target_length: int) -> str:
    """Computes `Windows.fingerprint()` of the concatenation of windows that come one part after another.

    That is the SHA-256 of all users, then all positions, sequences and targets. All but the users wait in unnamed
    temporary files (where TMPDIR says), 4 (1 + L + T) bytes a window, until the last part was there.

    Args:
        parts: gone over once; their users are numbered in the whole dataset.
        sequence_length: L.
        target_length: T.
    """
    digest = hashlib.sha256(f"{sequence_length},{target_length}".encode())
    with contextlib.ExitStack() as files:
        waiting = [files.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        for windows in parts:
            digest.update(np.ascontiguousarray(windows.users, "<i4").data)
            for file, array in zip(waiting, (windows.positions, windows.sequences, windows.targets), strict=True):
                file.write(np.ascontiguousarray(array, "<i4").data)
            # Else they would stay in memory until the next part is there.
            del windows, array
        for file in waiting:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
