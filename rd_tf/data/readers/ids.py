"""Raw ids as integer codes and their distinct values."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rd_tf.errors import InputError

# Reasons why a row's id is bad, indexed by `EncodedIds.faults`.
FAULTS = ("", "empty", "not UTF-8", "more than one line", "not a whole number", "too large for a float to be exact")
# From here on, several whole numbers have become one float.
_EXACT = {pa.float16(): 2.0**11, pa.float32(): 2.0**24, pa.float64(): 2.0**53}


@dataclasses.dataclass(frozen=True)
class EncodedIds:
    """A column of ids.

    Attributes:
        codes: `[rows] int32` into `values`; -1 is a null.
        values: the distinct ids. An id that is not UTF-8 stands here altered; its rows are bad anyway.
        faults: `[rows] int8`, what the row's id is, an index into `FAULTS`; 0 is nothing.
    """

    codes: np.ndarray
    values: list[str]
    faults: np.ndarray


def encode_ids(column: pa.ChunkedArray, place: str) -> EncodedIds:
    """Encodes a column of raw ids: text, bytes, integers, or floats that are whole numbers (a column with gaps).

    Args:
        column: `[rows]` of raw ids.
        place: file and column, for messages.

    Raises:
        InputError: a column of another type.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_binary())
    elif not (_is_bytes(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise InputError(f"{place} is of type {kind}, which holds no ids; store ids as text or integers")
    limit = _EXACT.get(kind, 0.0)
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())  # Arrow encodes no half floats.
    # A cast to the value type would undo the dictionaries that the CSV reader has built already.
    column = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    chunks = column.chunks
    codes = [
        chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False) for chunk in chunks
    ]
    distinct = chunks[0].dictionary.to_pylist() if chunks else []
    values, faults = [], np.zeros(len(distinct) + 1, np.int8)
    for code, value in enumerate(distinct):
        text, faults[code] = _checked(value, limit)
        values.append(text)
    faults[-1] = FAULTS.index("empty")  # Reached by the code -1.
    all_codes = np.concatenate(codes) if codes else np.zeros(0, np.int32)
    return EncodedIds(all_codes, values, faults[all_codes])


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _checked(value: bytes | int | float | None, limit: float) -> tuple[str, int]:
    if isinstance(value, float):
        if value != value:
            return "", FAULTS.index("empty")
        if not value.is_integer():
            return str(value), FAULTS.index("not a whole number")
        return (str(int(value)), 0) if abs(value) < limit else (str(value), len(FAULTS) - 1)
    if not isinstance(value, bytes):
        return ("", FAULTS.index("empty")) if value is None else (str(value), 0)
    if not value:
        return "", FAULTS.index("empty")
    # Ids are stored one a line, and TensorFlow's text-file tables strip carriage returns.
    if b"\n" in value or b"\r" in value:
        return value.decode(errors="replace"), FAULTS.index("more than one line")
    try:
        return value.decode(), 0
    except UnicodeDecodeError:
        return value.decode(errors="replace"), FAULTS.index("not UTF-8")
