"""TensorProto from and to NumPy."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from rd_tf.serving.server.serving_error import invalid

# tensorflow_model_server answers in these fields, where tf.make_tensor_proto writes tensor_content.
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


def read_tensor(proto: tensor_pb2.TensorProto, max_bytes: int) -> np.ndarray:
    """Decodes a tensor.

    Args:
        proto: any TensorProto; strings become `bytes` objects in an array of dtype object.
        max_bytes: the most the array may take; a proto of a few bytes can describe a tensor of any size.

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
    try:
        array = tf.make_ndarray(proto)
    # Any of a dozen exceptions, by dtype and by what is wrong with the proto.
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
