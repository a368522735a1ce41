"""Requests and answers as bytes: errors, JSON documents, tensors."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# HTTP statuses as tensorflow_model_server chooses them; every other code is a 500.
_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
_WHITESPACE = " \t\r\n"
# How TensorFlow goes on after an error's own words, and how it words a check of the graph.
_NODES = re.compile(r"\n\t ?\[\[.*", re.DOTALL)
_FAILED_CHECK = re.compile(r"assertion failed: \[(.*)\]", re.DOTALL)
Inputs = Mapping[str, meta_graph_pb2.TensorInfo]
_BYTES_SUFFIX = "_bytes"
_MAX_RANK = 64
# Fields in which tensorflow_model_server answers; tf.make_tensor_proto would write tensor_content.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


class ServingError(Exception):
    """A request or a model version that cannot be used.

    Attributes:
        code: gRPC's status code.
        message: one sentence for the client.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def http_status(self) -> HTTPStatus:
        """The HTTP status that goes with the code."""
        return _HTTP.get(self.code, HTTPStatus.INTERNAL_SERVER_ERROR)


def invalid(message: str) -> ServingError:
    """The error of a request that cannot be right for any state of the server."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """The error of a request for a model or version that is not served."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def from_tensorflow(error: tf.errors.OpError) -> ServingError:
    """An error of the graph, with TensorFlow's own code, and its message without the names of the graph's nodes."""
    message = _NODES.sub("", error.message)
    if failed := _FAILED_CHECK.fullmatch(message):
        message = failed[1]
    return ServingError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), message)


def read_document(body: bytes) -> dict[str, Any]:
    """Parses a body as tensorflow_model_server does: NaN, Infinity and -Infinity are numbers, and what follows the
    document is not looked at.

    Raises:
        ServingError: the body is no JSON object in UTF-8, is nested too deeply, or holds a number beyond float64.
    """
    text = body.decode("utf-8-sig", "surrogateescape").lstrip(_WHITESPACE)
    try:
        document, end = json.JSONDecoder(parse_float=_finite_number).raw_decode(text)
        text[:end].encode()
    except UnicodeEncodeError:
        raise invalid("JSON parse error: not UTF-8") from None
    except RecursionError:
        raise invalid("JSON parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid(f"JSON parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid("JSON value is not an object")
    return document


def signature_name(document: dict[str, Any]) -> str:
    """The signature a document asks for; empty where it names none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' must be a string")
    return name


def write_document(document: dict[str, Any]) -> bytes:
    """An answer's body. Bytes that are no UTF-8 go out as they are: strings carry them as surrogate escapes."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _finite_number(text: str) -> float:
    value = float(text)
    # Python reads 1e999 as infinity.
    if math.isinf(value):
        raise ValueError(f"number {text[:40]} is too big")
    return value


def read_inputs(document: Mapping[str, Any], inputs: Inputs, max_values: int) -> tuple[dict[str, np.ndarray], bool]:
    """Reads the tensors of a predict request.

    Args:
        document: the request; its `instances` are rows, its `inputs` columns.
        inputs: the signature's.
        max_values: the most that an input may hold.

    Returns:
        Input name -> array (strings are `bytes` objects), and whether the request is by rows.

    Raises:
        ServingError: neither or both forms, names that are not the signature's, ragged lists, too many values, a value
            of another type or one that its type cannot hold.
    """
    if not inputs:
        raise invalid("the signature has no inputs")
    if ("instances" in document) == ("inputs" in document):
        raise invalid("exactly one of 'instances' and 'inputs' is expected")
    if "instances" in document:
        columns = _columns_of_rows(document["instances"], list(inputs))
        return {name: _tensor(name, column, inputs[name].dtype, max_values) for name, column in columns.items()}, True
    values = document["inputs"]
    if not isinstance(values, dict) or _is_base64(values):
        values = {_only(list(inputs), "inputs"): values}
    if missing := inputs.keys() - values.keys():
        raise invalid(f"'inputs' lacks {', '.join(sorted(missing))}")
    # Values under other names are ignored, as tensorflow_model_server does.
    return {name: _tensor(name, values[name], inputs[name].dtype, max_values) for name in inputs}, False


def write_outputs(outputs: Mapping[str, np.ndarray], by_rows: bool) -> dict[str, Any]:
    """The answer to a predict request: `predictions` for rows, `outputs` for columns; a single output has no name.

    float32 gets 6 significant digits where they are enough to get the same float32 back, else 9. Strings of an output
    whose name ends in `_bytes` become `{"b64": ...}`.

    Raises:
        ServingError: an answer by rows whose outputs do not have a row for each other, or a dtype JSON lacks.
    """
    if by_rows:
        lengths = {len(array) if array.ndim else None for array in outputs.values()}
        if len(lengths) != 1 or None in lengths:
            raise invalid("outputs differ in their first dimension; ask with 'inputs' instead of 'instances'")
    plain = {name: _plain(name, array) for name, array in outputs.items()}
    if len(plain) == 1:
        (only,) = plain.values()
        return {"predictions" if by_rows else "outputs": only}
    if not by_rows:
        return {"outputs": plain}
    return {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}


def read_text(cell: Any) -> bytes:
    """The bytes of a JSON string, in UTF-8, or of `{"b64": ...}`, whose padding may be left out."""
    try:
        if isinstance(cell, str):
            return cell.encode()
        if _is_base64(cell):
            return base64.b64decode(cell["b64"] + "=" * (-len(cell["b64"]) % 4), validate=True)
    except UnicodeEncodeError as error:
        raise invalid("a string holds half a surrogate pair") from error
    except ValueError as error:
        raise invalid("'b64' is not base64") from error
    raise invalid("a value is neither a string nor {'b64': ...}")


def shorten(array: np.ndarray) -> np.ndarray:
    """float32 values as the float64 numbers that JSON shows: rounded to 6 significant digits, or to 9."""
    values = array.astype(np.float32).ravel()
    six = np.array([float(f"{value:.6g}") for value in values.tolist()], np.float64)
    with np.errstate(over="ignore"):
        inexact = np.flatnonzero((six.astype(np.float32) != values) & np.isfinite(values))
    for place in inexact:
        six[place] = float(f"{values[place]:.9g}")
    return six.reshape(array.shape)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _only(names: list[str], key: str) -> str:
    if len(names) > 1:
        raise invalid(f"'{key}' must name its values: the signature's inputs are {', '.join(sorted(names))}")
    return names[0]


def _columns_of_rows(rows: Any, names: list[str]) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows:
        raise invalid("'instances' must be a list of at least one")
    named = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not named:
        if any(isinstance(row, dict) and not _is_base64(row) for row in rows):
            raise invalid("'instances' mixes objects and plain values")
        return {_only(names, "instances"): rows}
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != set(names):
            raise invalid(f"instance {place} must be an object with exactly the keys {', '.join(sorted(names))}")
    return {name: [row[name] for row in rows] for name in names}


def check_count(name: str, count: int, max_values: int) -> None:
    """Checks how many values an input holds.

    Raises:
        ServingError: more than `max_values`.
    """
    if count > max_values:
        raise invalid(f"{name} holds {count:,} values; at most {max_values:,} are allowed (--max_values)")


def _tensor(name: str, value: Any, dtype: int, max_values: int) -> np.ndarray:
    shape, flat = _flatten(name, value, max_values)
    try:
        return _convert(flat, tf.as_dtype(dtype)).reshape(shape)
    except ServingError as error:
        raise invalid(f"input {name}: {error.message}") from error


def _flatten(name: str, value: Any, max_values: int) -> tuple[list[int], list[Any]]:
    shape: list[int] = []
    first, flat = value, [value]
    while isinstance(first, list):
        size = len(first)
        if len(shape) == _MAX_RANK or not all(isinstance(part, list) and len(part) == size for part in flat):
            raise invalid(f"input {name}: lists at one level differ in length, or are nested too deeply")
        shape.append(size)
        check_count(f"input {name}", len(flat) * size, max_values)
        flat = [cell for part in flat for cell in part]
        if not flat:
            break
        first = flat[0]
    return shape, flat


def _convert(flat: Sequence[Any], dtype: tf.DType) -> np.ndarray:
    kinds = set(map(type, flat))
    if list in kinds:
        raise invalid("a list stands beside values")
    if dtype == tf.string:
        texts = np.empty(len(flat), object)
        texts[:] = [read_text(cell) for cell in flat]
        return texts
    if dtype == tf.bool:
        allowed: set[type] = {bool}
    elif dtype.is_integer:
        allowed = {int}
    elif dtype.is_floating:
        allowed = {int, float}
    else:
        raise invalid(f"{dtype.name} cannot be written in JSON")
    if not kinds <= allowed:
        raise invalid(f"a value is not of type {dtype.name}")
    if dtype.is_floating:
        return _floats(flat, dtype, int in kinds)
    try:
        return np.array(flat, dtype.as_numpy_dtype)
    except OverflowError as error:
        raise invalid(f"a value is beyond {dtype.name}") from error


def _floats(flat: Sequence[Any], dtype: tf.DType, with_integers: bool) -> np.ndarray:
    # float32 cannot tell 2^24 + 1 from 2^24; tensorflow_model_server refuses integers from 2^24 on, too.
    exact = 2.0 ** {tf.float64: 53, tf.float32: 24, tf.float16: 11}.get(dtype, 8)
    if with_integers and any(type(cell) is int and abs(cell) >= exact for cell in flat):
        raise invalid(f"an integer cannot be written as {dtype.name} without loss")
    wide = np.array(flat, np.float64)
    with np.errstate(over="ignore"):
        array = wide.astype(dtype.as_numpy_dtype)
    if not np.array_equal(np.isfinite(wide), np.isfinite(array)):
        raise invalid(f"a value is beyond {dtype.name}")
    return array


def _plain(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        cells = np.empty(array.size, object)
        if name.endswith(_BYTES_SUFFIX):
            cells[:] = [{"b64": base64.b64encode(cell).decode()} for cell in array.ravel().tolist()]
        else:
            cells[:] = [cell.decode("utf-8", "surrogateescape") for cell in array.ravel().tolist()]
        return cells.reshape(array.shape).tolist()
    if array.dtype == np.float64 or array.dtype.kind in "iub":
        return array.tolist()
    if tf.as_dtype(array.dtype).is_floating:
        return shorten(array).tolist()
    raise invalid(f"output {name}: {array.dtype.name} cannot be written in JSON")


def read_tensor(proto: tensor_pb2.TensorProto, max_bytes: int, max_values: int = 1 << 62) -> np.ndarray:
    """Decodes a tensor.

    Args:
        proto: any TensorProto; strings become `bytes` objects in an array of dtype object.
        max_bytes: the most the array may take; a proto of a few bytes can describe a tensor of any size.
        max_values: the most it may hold.

    Raises:
        ServingError: the proto is not a tensor, or too large a one.
    """
    try:
        itemsize = tf.as_dtype(proto.dtype).size
        sizes = [dim.size for dim in proto.tensor_shape.dim]
    except TypeError as error:
        raise invalid(f"dtype {proto.dtype} is unknown") from error
    if proto.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
        raise invalid("a tensor's shape must be fully known")
    if math.prod(sizes) * max(1, itemsize or 8) > max_bytes:
        raise invalid(f"a tensor of shape {sizes} takes more than {max_bytes} bytes")
    check_count(f"a tensor of shape {sizes}", math.prod(sizes), max_values)
    try:
        array = tf.make_ndarray(proto)
    # make_ndarray raises a dozen kinds of exception, by dtype and by what is wrong with the proto.
    except Exception as error:
        raise invalid(f"a tensor of shape {sizes} cannot be read: {error}") from error
    if array.shape != tuple(sizes):
        raise invalid(f"a tensor of shape {sizes} holds values of shape {list(array.shape)}")
    return array


def write_tensor(array: np.ndarray, dtype: int) -> tensor_pb2.TensorProto:
    """Encodes an output in the field of its type.

    Args:
        array: the values; strings are `bytes` objects.
        dtype: number of the TensorFlow dtype.
    """
    field = _FIELDS.get(tf.as_dtype(dtype))
    if field is None:
        return tf.make_tensor_proto(array, dtype=dtype, shape=array.shape)
    proto = tensor_pb2.TensorProto(dtype=dtype)
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    getattr(proto, field).extend(array.ravel().tolist())
    return proto
