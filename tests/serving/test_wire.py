"""JSON in both directions, against what NumPy and a plain loop say."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from tensorflow.core.protobuf import meta_graph_pb2

from rd_tf.serving.server.wire import ServingError, read_document, read_inputs, shorten, write_document, write_outputs


def signature(**dtypes):
    return {
        name: meta_graph_pb2.TensorInfo(dtype=tf.as_dtype(dtype).as_datatype_enum) for name, dtype in dtypes.items()
    }


def read(text, **dtypes):
    return read_inputs(read_document(text.encode()), signature(**dtypes), 1000)


@pytest.mark.parametrize(
    ("text", "dtypes", "expected"),
    [
        ('{"instances": [1, 2]}', {"x": "int64"}, {"x": [1, 2]}),
        ('{"instances": [{"x": 1, "y": [true]}]}', {"x": "int32", "y": "bool"}, {"x": [1], "y": [[True]]}),
        ('{"instances": [[], []]}', {"x": "string"}, {"x": [[], []]}),
        ('{"instances": ["é", {"b64": "/w"}]}', {"x": "string"}, {"x": ["é".encode(), b"\xff"]}),
        ('{"instances": [{"b64": "AA=="}]}', {"x": "string"}, {"x": [b"\0"]}),
        ('{"inputs": 3}', {"x": "float32"}, {"x": 3.0}),
        ('{"inputs": {"x": [[1], [2.5]], "y": 7}}', {"x": "float32", "y": "uint8"}, {"x": [[1], [2.5]], "y": 7}),
        ('{"inputs": [NaN, Infinity, -Infinity]}', {"x": "float64"}, {"x": [np.nan, np.inf, -np.inf]}),
        ('\ufeff{"instances": [1]}', {"x": "int64"}, {"x": [1]}),
        (' \n{"instances": [1]}\n} and more', {"x": "int64"}, {"x": [1]}),
        (
            '{"inputs": {"x": [], "y": [], "z": []}}',
            {"x": "string", "y": "int32", "z": "bool"},
            {"x": [], "y": [], "z": []},
        ),
        ('{"inputs": {"x": [], "y": [[]]}}', {"x": "string", "y": "string"}, {"x": [], "y": [[]]}),
    ],
)
def test_rows_and_columns_are_read(text, dtypes, expected):
    inputs, by_rows = read(text, **dtypes)
    assert by_rows == ("instances" in text)
    assert inputs.keys() == expected.keys()
    for name, values in expected.items():
        wanted = object if dtypes[name] == "string" else dtypes[name]
        np.testing.assert_array_equal(inputs[name], np.array(values, wanted), strict=True)


@pytest.mark.parametrize(
    ("text", "dtypes", "message"),
    [
        ("", {"x": "int64"}, "JSON parse error"),
        ("[1]", {"x": "int64"}, "not an object"),
        ('{"instances": [1]', {"x": "int64"}, "JSON parse error"),
        ('{"instances": ' + "[" * 100_000, {"x": "int64"}, "nested too deeply"),
        ('{"instances": ' + "[" * 70 + "]" * 70 + "}", {"x": "int64"}, "nested too deeply"),
        ('{"instances": [1e999]}', {"x": "float64"}, "too big"),
        ('{"instances": [' + "9" * 5000 + "]}", {"x": "int64"}, "JSON parse error"),
        ('{"instances": [' + "9" * 400 + "]}", {"x": "float64"}, "without loss"),
        ('{"instances": [9223372036854775808]}', {"x": "int64"}, "beyond int64"),
        ('{"instances": [-1]}', {"x": "uint8"}, "beyond uint8"),
        ('{"instances": [1e39]}', {"x": "float32"}, "beyond float32"),
        ('{"instances": [16777216]}', {"x": "float32"}, "without loss"),
        ('{"instances": [1.0]}', {"x": "int64"}, "not of type int64"),
        ('{"instances": [true]}', {"x": "int64"}, "not of type int64"),
        ('{"instances": [true]}', {"x": "float32"}, "not of type float32"),
        ('{"instances": [1]}', {"x": "bool"}, "not of type bool"),
        ('{"instances": [null]}', {"x": "float32"}, "not of type float32"),
        ('{"instances": ["1"]}', {"x": "int64"}, "not of type int64"),
        ('{"instances": [1]}', {"x": "string"}, "neither a string"),
        ('{"instances": [{"b64": "?"}]}', {"x": "string"}, "not base64"),
        ('{"instances": ["\\ud800"]}', {"x": "string"}, "surrogate"),
        ('{"instances": [[1], [2, 3]]}', {"x": "int64"}, "differ in length"),
        ('{"instances": [[1], 2]}', {"x": "int64"}, "differ in length"),
        ('{"instances": [1, [2]]}', {"x": "int64"}, "beside values"),
        ('{"instances": [1, {"x": 1}]}', {"x": "int64"}, "mixes objects"),
        ('{"instances": [1]}', {"x": "int64", "y": "int64"}, "must name its values"),
        ('{"instances": [{"x": 1}]}', {"x": "int64", "y": "int64"}, "exactly the keys x, y"),
        ('{"inputs": {"x": 1}}', {"x": "int64", "y": "int64"}, "lacks y"),
        ('{"instances": [1], "inputs": [1]}', {"x": "int64"}, "exactly one of"),
        ("{}", {"x": "int64"}, "exactly one of"),
        ('{"instances": []}', {"x": "int64"}, "at least one"),
        ('{"instances": {"x": 1}}', {"x": "int64"}, "must be a list"),
        ('{"instances": [1]}', {"x": "complex64"}, "cannot be written in JSON"),
        ('{"instances": [1]}', {}, "no inputs"),
    ],
)
def test_what_does_not_fit_is_refused_by_message(text, dtypes, message):
    with pytest.raises(ServingError, match=message):
        read(text, **dtypes)


def test_bytes_that_are_no_utf8_are_refused():
    with pytest.raises(ServingError, match="JSON parse error"):
        read_document(b'{"instances": ["\xff"]}')


def test_bytes_behind_the_document_are_not_looked_at():
    assert read_document(b'{"inputs": 1}\xff\x00{') == {"inputs": 1}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.2, "0.2"), (2e-8, "2e-08"), (6e20, "6e+20"), (1 / 3, "0.333333343"), (7, "7.0"), (0.503209531, "0.503209531")],
)
def test_float32_has_six_digits_where_they_are_enough_and_nine_elsewhere(value, shown):
    assert json.dumps(shorten(np.array(value, np.float32)).item()) == shown


@given(st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4)))
def test_float32_comes_back_as_it_was(array):
    text = write_document(write_outputs({"y": array}, by_rows=False))
    back = np.array(json.loads(text)["outputs"], np.float32).reshape(array.shape)
    np.testing.assert_array_equal(back, array)


@given(st_numpy.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 4))), st.lists(st.binary(), min_size=1))
def test_what_is_written_can_be_read(numbers, texts):
    strings = np.empty(len(texts), object)
    strings[:] = texts
    outputs = {"x": numbers, "t_bytes": strings}
    document = write_outputs(outputs, by_rows=False)
    inputs, _ = read(json.dumps({"inputs": document["outputs"]}), x="int64", t_bytes="string")
    for name, array in outputs.items():
        np.testing.assert_array_equal(inputs[name], array, strict=True)


def test_a_single_output_has_no_name_and_several_make_a_row_an_object():
    x, y = np.array([[1, 2], [3, 4]]), np.array([True, False])
    assert write_outputs({"x": x}, by_rows=True) == {"predictions": [[1, 2], [3, 4]]}
    assert write_outputs({"x": x}, by_rows=False) == {"outputs": [[1, 2], [3, 4]]}
    rows = [{"x": [1, 2], "y": True}, {"x": [3, 4], "y": False}]
    assert write_outputs({"x": x, "y": y}, by_rows=True) == {"predictions": rows}
    with pytest.raises(ServingError, match="first dimension"):
        write_outputs({"x": x, "y": y[:1]}, by_rows=True)
    with pytest.raises(ServingError, match="first dimension"):
        write_outputs({"x": np.array(1)}, by_rows=True)


def test_no_rows_are_an_empty_list():
    users, items = np.zeros([0], np.int64), np.zeros([0, 3], object)
    assert write_outputs({"x": users, "y": items}, by_rows=False) == {"outputs": {"x": [], "y": []}}
    assert write_outputs({"y": items}, by_rows=False) == {"outputs": []}


def test_strings_go_out_as_they_are_and_bytes_as_base64():
    cells = np.array([b"\xff", "é".encode()], object)
    assert write_document(write_outputs({"t": cells}, by_rows=False)) == b'{"outputs": ["\xff", "\xc3\xa9"]}'
    assert write_outputs({"t_bytes": cells}, by_rows=False) == {"outputs": [{"b64": "/w=="}, {"b64": "w6k="}]}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"b64": "AA=="}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "b64"]), inner),
    max_leaves=12,
)


@given(_VALUES, st.sampled_from(["instances", "inputs"]), st.sampled_from(["int32", "float32", "string", "bool"]))
def test_any_json_is_either_tensors_or_an_error_for_the_client(value, key, dtype):
    try:
        inputs, _ = read_inputs({key: value}, signature(x=dtype), 1000)
    except ServingError as error:
        outcome = int(error.http_status)
    else:
        outcome = inputs["x"].dtype
    assert outcome in (400, np.dtype(object if dtype == "string" else dtype))
