"""tf.train.Example from the JSON of the classify and regress interface, and their results to JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from rd_tf.serving.server.json_tensors import decode_base64, encode_text, shorten
from rd_tf.serving.server.serving_error import invalid

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def read_input(document: Mapping[str, Any]) -> input_pb2.Input:
    """Reads `examples` and the `context` they share.

    Raises:
        ServingError: no examples, or a feature that is no list of one kind of value.
    """
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        raise invalid("'examples' must be a list of at least one")
    result = input_pb2.Input()
    if "context" in document:
        shared = result.example_list_with_context
        shared.context.CopyFrom(_example(document["context"]))
        shared.examples.extend(map(_example, examples))
    else:
        result.example_list.examples.extend(map(_example, examples))
    return result


def write_classifications(result: classification_pb2.ClassificationResult) -> dict[str, Any]:
    """`results`: for every example its pairs of label and score."""
    return {
        "results": [
            [[kind.label, _short(kind.score)] for kind in classifications.classes]
            for classifications in result.classifications
        ]
    }


def write_regressions(result: regression_pb2.RegressionResult) -> dict[str, Any]:
    """`results`: for every example its value."""
    return {"results": [_short(regression.value) for regression in result.regressions]}


def _short(value: float) -> float:
    return shorten(np.array([value], np.float32)).tolist()[0]


def _example(value: Any) -> tf.train.Example:
    if not isinstance(value, dict):
        raise invalid("an example must be an object")
    return tf.train.Example(features={"feature": {name: _feature(name, cells) for name, cells in value.items()}})


def _feature(name: str, value: Any) -> tf.train.Feature:
    cells = value if isinstance(value, list) else [value]
    if all(isinstance(cell, int) for cell in cells):
        if not all(_INT64_MIN <= cell <= _INT64_MAX for cell in cells):
            raise invalid(f"feature {name}: a value is beyond int64")
        return tf.train.Feature(int64_list={"value": map(int, cells)}) if cells else tf.train.Feature()
    if all(isinstance(cell, float) for cell in cells):
        if any(_FLOAT32_MAX < abs(cell) < float("inf") for cell in cells):
            raise invalid(f"feature {name}: a value is beyond float32")
        return tf.train.Feature(float_list={"value": cells})
    if all(isinstance(cell, str) or (isinstance(cell, dict) and isinstance(cell.get("b64"), str)) for cell in cells):
        texts = [encode_text(cell) if isinstance(cell, str) else decode_base64(cell) for cell in cells]
        return tf.train.Feature(bytes_list={"value": texts})
    raise invalid(f"feature {name}: values must all be integers, all decimals or all strings")
