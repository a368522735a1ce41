"""What is written from front to back is what NumPy writes at once."""

import hashlib
import io

import numpy as np
import pytest

from rd_tf.data.teacher_lists import NpyWriter


@pytest.mark.parametrize("dtype", [np.int32, np.float16])
@pytest.mark.parametrize("shape", [(7, 3), (7,), (0, 3)])
def test_the_bytes_are_those_of_numpy(dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    ours, numpys = io.BytesIO(), io.BytesIO()
    writer = NpyWriter(ours, shape, dtype)
    for begin in range(0, shape[0], 3):
        writer.add(array[begin : begin + 3])
    np.save(numpys, array.astype(dtype))
    assert ours.getvalue() == numpys.getvalue()
    assert writer.sha256() == hashlib.sha256(ours.getvalue()).hexdigest()


@pytest.mark.parametrize("rows", [4, 6])
def test_missing_or_further_rows_are_refused(rows):
    writer = NpyWriter(io.BytesIO(), (5, 2), np.int32)
    writer.add(np.zeros((rows, 2)))
    with pytest.raises(ValueError, match=f"5 rows were announced; received {rows}"):
        writer.sha256()
