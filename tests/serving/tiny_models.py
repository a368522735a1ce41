"""Models that are saved in a fraction of a second."""

import os
import shutil
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2


class _Adding(tf.Module):
    def __init__(self, added):
        super().__init__()
        self.added = tf.Variable(float(added))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(self, x):
        return {"y": x + self.added}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "steps")])
    def count(self, steps):
        return {"counted": tf.while_loop(lambda n: n < steps[0], lambda n: [n + 1], [tf.constant(0, tf.int64)])[0]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def echo(self, text):
        return {"text": text, "text_bytes": text}


def write_adding_model(directory, added, warmup=None):
    """Writes a model with x -> y = x + added, and the signatures `count` (takes as long as told) and `echo`.

    Args:
        directory: the version's directory.
        added: what is added.
        warmup: input name of the one warm-up request; none: no warm-up file.
    """
    module = _Adding(added)
    signatures = {"serving_default": module.serve, "count": module.count, "echo": module.echo}
    tf.saved_model.save(module, str(directory), signatures=signatures)
    if warmup:
        request = predict_pb2.PredictRequest()
        request.inputs[warmup].CopyFrom(tf.make_tensor_proto([1.0]))
        log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
        file = Path(directory) / "assets.extra" / "tf_serving_warmup_requests"
        file.parent.mkdir()
        with tf.io.TFRecordWriter(str(file)) as writer:
            writer.write(log.SerializeToString())


def publish(source, base_path, number):
    """Copies a version under another number; it appears whole, as an export does."""
    temporary = Path(base_path) / f".tmp-{number}"
    shutil.copytree(source, temporary)
    os.rename(temporary, Path(base_path) / str(number))
