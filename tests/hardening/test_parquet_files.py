"""Parquet files of check-ins: every type of column is read exactly or refused, and so is every damage."""

import datetime
import decimal
import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damaged, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.data.readers.check_ins import read_check_ins
from rd_tf.storage import InputError

COLUMNS = {"user_column": "u", "item_column": "i", "time_column": "t"}
ROWS = 4
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1, max_size=8)
INT32 = st.integers(-(2**31), 2**31 - 1)
# The type, and values whose text is the id.
ID_COLUMNS = {
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "half float": (pa.float16(), st.integers(-2047, 2047)),
    "float": (pa.float32(), st.integers(1 - 2**24, 2**24 - 1)),
    "double": (pa.float64(), st.integers(1 - 2**53, 2**53 - 1)),
    "string": (pa.string(), TEXT),
    "large string": (pa.large_string(), TEXT),
    "string view": (pa.string_view(), TEXT),
    "binary": (pa.binary(), TEXT.map(str.encode)),
    "fixed binary": (pa.binary(2), st.sampled_from([b"ab", b"\0 ", "é".encode()])),
    "dictionary of strings": (pa.dictionary(pa.int8(), pa.string()), TEXT),
    "dictionary of integers": (pa.dictionary(pa.int32(), pa.int64()), INT32),
}
_DATES = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))
# Every type of column, with values that are good times, bad ones, or none at all.
ANY_COLUMN = {
    **ID_COLUMNS,
    "any half float": (pa.float16(), st.floats(width=16).map(np.float16)),
    "any float": (pa.float32(), st.floats(width=32)),
    "any double": (pa.float64(), st.floats()),
    "any bytes": (pa.binary(), st.binary(max_size=6)),
    "any text": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
    "boolean": (pa.bool_(), st.booleans()),
    "nothing": (pa.null(), st.none()),
    "decimal": (pa.decimal128(20, 3), st.decimals(-(10**16), 10**16, places=3)),
    "wide decimal": (pa.decimal256(76, 0), st.sampled_from([decimal.Decimal(5), decimal.Decimal(10**75)])),
    "seconds": (pa.timestamp("s"), st.integers(-(2**33), 2**33)),
    "milliseconds in Berlin": (pa.timestamp("ms", "Europe/Berlin"), st.integers(-(2**62), 2**62)),
    "nanoseconds": (pa.timestamp("ns", "UTC"), st.integers(-(2**63), 2**63 - 1)),
    "date": (pa.date32(), _DATES.map(datetime.datetime.date)),
    "time of day": (pa.time64("us"), st.integers(0, 86399)),
    "duration": (pa.duration("us"), st.integers(0, 99)),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=2)),
    "list of two": (pa.list_(pa.int64(), 2), st.just([1, 2])),
    "struct": (pa.struct({"x": pa.int64()}), st.fixed_dictionaries({"x": st.integers(0, 9)})),
    "map": (pa.map_(pa.string(), pa.int64()), st.just([("a", 1)])),
    "dictionary of doubles": (pa.dictionary(pa.int8(), pa.float64()), st.floats()),
    "dictionary of times": (pa.dictionary(pa.int8(), pa.timestamp("us")), _DATES),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("in") / "in.parquet"


def array(kind: pa.DataType, values: list) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return array(kind.value_type, values).dictionary_encode().cast(kind)
    if pa.types.is_float16(kind):
        values = [None if value is None else np.float16(value) for value in values]
    return pa.array(values, kind)


def read(path, skip_bad_rows=False):
    return read_check_ins([str(path)], "parquet", COLUMNS, skip_bad_rows)


@settings(max_examples=80)
@given(data=st.data(), user=st.sampled_from(list(ID_COLUMNS)), item=st.sampled_from(list(ID_COLUMNS)))
def test_ids_of_every_type_come_back_byte_for_byte(path, data, user, item):
    columns, expected = {}, []
    for column, (kind, values) in (("u", ID_COLUMNS[user]), ("i", ID_COLUMNS[item])):
        drawn = data.draw(st.lists(values, min_size=ROWS, max_size=ROWS))
        columns[column] = array(kind, drawn)
        expected.append([value.decode() if isinstance(value, bytes) else str(value) for value in drawn])
    pq.write_table(pa.table({**columns, "t": list(range(ROWS))}), path)
    check_ins = read(path)
    assert [check_ins.user_ids[code] for code in check_ins.users] == expected[0]
    assert [check_ins.item_ids[code] for code in check_ins.items] == expected[1]
    assert check_ins.timestamps.tolist() == list(range(ROWS))


@settings(max_examples=250)
@given(data=st.data(), column=st.sampled_from("uit"), name=st.sampled_from(list(ANY_COLUMN)))
def test_a_column_of_any_type_is_read_or_refused_and_every_row_is_counted(path, data, column, name):
    kind, values = ANY_COLUMN[name]
    drawn = data.draw(st.lists(st.none() | values, min_size=ROWS, max_size=ROWS))
    columns = {"u": list("abcd"), "i": list("pqrs"), "t": [1, 2, 3, 4], column: array(kind, drawn)}
    pq.write_table(pa.table(columns), path)
    with refusing(path) as not_all:
        strict = read(path)
    with refusing(path) as refused:
        lenient = read(path, skip_bad_rows=True)
    if refused:
        assert not_all.message == refused.message
        return
    assert lenient.rows_read == ROWS == len(lenient.users) + sum(lenient.skipped.values())
    assert bool(lenient.skipped) == bool(not_all)
    if not not_all:
        assert None not in drawn
        assert strict.timestamps.tolist() == lenient.timestamps.tolist()
        if column == "t":
            assert len(set(drawn)) >= len(set(strict.timestamps.tolist()))


@settings(max_examples=250)
@given(data=st.data(), compression=st.sampled_from(["none", "snappy", "zstd"]))
def test_a_damaged_file_is_read_or_refused(path, data, compression):
    content = io.BytesIO()
    table = pa.table({"u": ["a", "b"] * 5, "i": [1, 2] * 5, "t": [1.5, math.pi] * 5})
    pq.write_table(table, content, compression=compression)
    path.write_bytes(data.draw(damaged(content.getvalue())))
    for skip_bad_rows in (False, True):
        with refusing(path):
            check_ins = read(path, skip_bad_rows)
            assert check_ins.rows_read == len(check_ins.users) + sum(check_ins.skipped.values())


@pytest.mark.parametrize(("kind", "bits"), [(pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53)])
def test_ids_that_a_float_cannot_tell_apart_are_refused(path, kind, bits):
    pq.write_table(pa.table({"u": array(kind, [2**bits - 1, 2**bits]), "i": ["p", "q"], "t": [1, 2]}), path)
    with pytest.raises(InputError, match=r"row 2: the user id \d+\.0 is too large for a float to be exact"):
        read(path)
    assert read(path, skip_bad_rows=True).user_ids[0] == str(2**bits - 1)


@pytest.mark.parametrize("column", ["u", "i", "t"])
@pytest.mark.parametrize("encode", [False, True])
def test_text_that_is_no_utf_8_is_named(path, column, encode):
    text = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"5\xff"))
    columns = {"u": ["a", "b"], "i": ["p", "q"], "t": [1, 2], column: text.dictionary_encode() if encode else text}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=r"row 2: the .* b'\\xff' is no"):
        read(path)
    assert len(read(path, skip_bad_rows=True).users) == 1
