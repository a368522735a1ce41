"""Runs the requests that came with a version before anyone asks it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from rd_tf.serving.server.inference import classify, multi_inference_task, predict, regress
from rd_tf.serving.server.limits import Limits
from rd_tf.serving.server.loaded_version import LoadedVersion
from rd_tf.serving.server.serving_error import ServingError, invalid
from rd_tf.serving.warmup import WARMUP_FILE

# tensorflow_model_server refuses a file with more.
MAX_RECORDS = 1000


def replay_warmup(version: LoadedVersion, directory: Path, limits: Limits) -> int:
    """Replays `assets.extra/tf_serving_warmup_requests`, a TFRecord of PredictionLog.

    Returns:
        How many requests there were; 0 without a file.

    Raises:
        ServingError: the version fails on one of them, there are more than 1000, or the file is damaged.
    """
    file = directory / WARMUP_FILE
    if not file.exists():
        return 0
    count = 0
    for log in _logs(file):
        count += 1
        if count > MAX_RECORDS:
            raise invalid(f"{file} holds more than {MAX_RECORDS} requests")
        _replay(version, log, limits)
    return count


def _logs(file: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            yield prediction_log_pb2.PredictionLog.FromString(record)
    except Exception as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error
        raise ServingError(grpc.StatusCode.DATA_LOSS, f"{file} cannot be read: {reason}") from error


def _replay(version: LoadedVersion, log: prediction_log_pb2.PredictionLog, limits: Limits) -> None:
    if log.HasField("predict_log"):
        predict(version, log.predict_log.request, limits)
    elif log.HasField("classify_log"):
        classify(version, log.classify_log.request.model_spec.signature_name, log.classify_log.request.input)
    elif log.HasField("regress_log"):
        regress(version, log.regress_log.request.model_spec.signature_name, log.regress_log.request.input)
    elif log.HasField("multi_inference_log"):
        request = log.multi_inference_log.request
        for task in request.tasks:
            multi_inference_task(version, task, request.input)
    else:
        raise invalid(f"a warm-up request is of the unsupported kind {log.WhichOneof('log_type')}")
