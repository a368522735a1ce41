"""A .npy file that is written from front to back."""

import hashlib
from typing import IO

import numpy as np
from numpy.lib import format as npy_format


class NpyWriter:
    """Writes an array's rows as they come, to any open file, with the bytes that `np.save` of the whole would write.

    Neither the array nor a memory map of it is ever in memory, and the file may be on an object store.

    Args:
        file: open for writing bytes; whoever opened it closes it.
        shape: of the array.
        dtype: of the array.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self._file, self._shape, self._dtype = file, shape, np.dtype(dtype)
        self._digest = hashlib.sha256()
        self.rows = 0
        description = npy_format.dtype_to_descr(self._dtype)
        npy_format.write_array_header_1_0(self, {"descr": description, "fortran_order": False, "shape": shape})

    def write(self, content: bytes | memoryview) -> None:
        """Writes bytes; what NumPy's header is written by."""
        self._digest.update(content)
        self._file.write(content)

    def add(self, rows: np.ndarray) -> None:
        """Writes the next rows, `[n, ...]`, converted to the array's type."""
        self.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self.rows += len(rows)

    def sha256(self) -> str:
        """SHA-256 (hex) of the file, once all rows are there.

        Raises:
            ValueError: there are more or fewer rows than the shape says.
        """
        if self.rows != self._shape[0]:
            raise ValueError(f"{self._shape[0]} rows were announced; received {self.rows}")
        return self._digest.hexdigest()
