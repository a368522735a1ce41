"""What the two interfaces ask of a loaded version."""

import grpc
import numpy as np
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, predict_pb2, regression_pb2

from rd_tf.serving.server.limits import Limits
from rd_tf.serving.server.loaded_version import LoadedVersion
from rd_tf.serving.server.serving_error import ServingError, invalid
from rd_tf.serving.server.tensor_protos import read_tensor

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def predict(version: LoadedVersion, request: predict_pb2.PredictRequest, limits: Limits) -> dict[str, np.ndarray]:
    """Answers a PredictRequest with the outputs it asks for: all, or those of its `output_filter`.

    Raises:
        ServingError: the request does not fit the signature, or the graph failed.
    """
    name = request.model_spec.signature_name
    known, wanted = version.signature(name).outputs, request.output_filter
    if unknown := set(wanted) - known.keys():
        raise invalid(f"output_filter names unknown outputs: {', '.join(sorted(unknown))}")
    if len(set(wanted)) < len(wanted):
        raise invalid("output_filter names an output twice")
    inputs = {input_: read_tensor(proto, limits.max_body_bytes) for input_, proto in request.inputs.items()}
    outputs = version.run(name, inputs)
    return {output: array for output, array in outputs.items() if not wanted or output in wanted}


def classify(
    version: LoadedVersion, signature_name: str, examples: input_pb2.Input
) -> classification_pb2.ClassificationResult:
    """Labels and scores: a signature from serialized examples to `classes` `[b, n] string`, `scores` `[b, n] float32`.

    Raises:
        ServingError: the signature is of another kind, or the graph failed.
    """
    count, outputs = _run(version, signature_name, examples, {"classes", "scores"})
    shapes = {array.shape for array in outputs.values()}
    shape = shapes.pop()
    if shapes or len(shape) != 2 or shape[0] != count:
        raise invalid(f"classes and scores must both be of shape [{count}, n]")
    labels, scores = outputs.get("classes"), outputs.get("scores")
    result = classification_pb2.ClassificationResult()
    for row in range(count):
        classes = result.classifications.add().classes
        for place in range(shape[1]):
            # A label is a proto string, which holds UTF-8 and nothing else.
            label = None if labels is None else labels[row, place].decode("utf-8", "replace")
            classes.add(label=label, score=None if scores is None else float(scores[row, place]))
    return result


def regress(version: LoadedVersion, signature_name: str, examples: input_pb2.Input) -> regression_pb2.RegressionResult:
    """A value an example: a signature from serialized examples to `outputs`, `[b]` or `[b, 1]` float32.

    Raises:
        ServingError: the signature is of another kind, or the graph failed.
    """
    count, outputs = _run(version, signature_name, examples, {"outputs"})
    values = outputs["outputs"]
    if values.shape not in {(count,), (count, 1)}:
        raise invalid(f"outputs must be of shape [{count}] or [{count}, 1], not {list(values.shape)}")
    return regression_pb2.RegressionResult(regressions=[{"value": float(value)} for value in values.ravel()])


def multi_inference_task(
    version: LoadedVersion, task: inference_pb2.InferenceTask, examples: input_pb2.Input
) -> inference_pb2.InferenceResult:
    """One of the tasks of a MultiInferenceRequest; its `model_spec` is left to the caller.

    Raises:
        ServingError: see `classify` and `regress`.
    """
    name = task.model_spec.signature_name
    if task.method_name == CLASSIFY:
        return inference_pb2.InferenceResult(classification_result=classify(version, name, examples))
    if task.method_name == REGRESS:
        return inference_pb2.InferenceResult(regression_result=regress(version, name, examples))
    raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"method {task.method_name!r} is not {CLASSIFY} or {REGRESS}")


def _run(
    version: LoadedVersion, signature_name: str, examples: input_pb2.Input, allowed: set[str]
) -> tuple[int, dict[str, np.ndarray]]:
    signature = version.signature(signature_name)
    if len(signature.inputs) != 1:
        raise invalid(f"a signature with one input was expected, not {len(signature.inputs)}")
    if not signature.outputs or not signature.outputs.keys() <= allowed:
        raise invalid(f"a signature with the outputs {', '.join(sorted(allowed))} was expected")
    serialized = _serialize(examples)
    if not serialized:
        raise invalid("the input is empty")
    array = np.empty(len(serialized), object)
    array[:] = serialized
    return len(serialized), version.run(signature_name, {next(iter(signature.inputs)): array})


def _serialize(examples: input_pb2.Input) -> list[bytes]:
    if examples.WhichOneof("kind") != "example_list_with_context":
        return [example.SerializeToString() for example in examples.example_list.examples]
    # Two serialized messages, one behind the other, parse as their merger.
    context = examples.example_list_with_context.context.SerializeToString()
    return [context + example.SerializeToString() for example in examples.example_list_with_context.examples]
