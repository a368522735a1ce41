"""The requests that tensorflow_model_server replays before a version goes live."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from rd_tf.serving.measured import EXTRA

WARMUP_FILE = Path(EXTRA) / "tf_serving_warmup_requests"


def write_warmup(
    directory: str | os.PathLike[str],
    model_name: str,
    requests: Sequence[tuple[str, Mapping[str, np.ndarray]]],
) -> None:
    """Writes the warm-up file of a SavedModel: a TFRecord of PredictionLog, one record a request.

    Args:
        directory: the SavedModel.
        model_name: the name it will be served under.
        requests: signature, and input name -> array; strings are objects.
    """
    path = Path(directory) / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, request in requests:
            predict = predict_pb2.PredictRequest()
            predict.model_spec.name = model_name
            predict.model_spec.signature_name = signature
            for name, array in request.items():
                dtype = tf.string if array.dtype == object else array.dtype
                predict.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=dtype, shape=array.shape))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict))
            writer.write(log.SerializeToString(deterministic=True))
