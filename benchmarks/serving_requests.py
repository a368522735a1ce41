"""Requests to an export as both interfaces take them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.http_connection import post
from benchmarks.serving_process import MODEL, PREDICT_PATH
from rd_tf.serving.signatures import QUERY, RECOMMEND, SCORE

SIGNATURES = (RECOMMEND, "recommend", SCORE, QUERY)


@dataclasses.dataclass(frozen=True)
class PredictionRequest:
    """One request.

    Attributes:
        signature: its signature.
        inputs: input name -> array; strings are objects.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]

    def rest(self, by_rows: bool = True) -> bytes:
        """A whole HTTP request, with `instances` or with `inputs`."""
        columns = {name: array.tolist() for name, array in self.inputs.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        body = {"instances": rows} if by_rows else {"inputs": columns}
        return post(PREDICT_PATH, json.dumps({"signature_name": self.signature, **body}).encode())

    def grpc(self) -> bytes:
        """A serialized PredictRequest."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = MODEL, self.signature
        for name, array in self.inputs.items():
            dtype = tf.string if array.dtype == object else array.dtype
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=dtype, shape=array.shape))
        return request.SerializeToString()

    def fed(self) -> dict[str, np.ndarray]:
        """The inputs as `LoadedVersion.run` takes them."""
        encode = np.vectorize(str.encode, otypes=[object])
        return {name: encode(array) if array.dtype == object else array for name, array in self.inputs.items()}


def random_request(
    signature: str,
    rows: int,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    recent: int,
    k: int,
    generator: np.random.Generator,
) -> PredictionRequest:
    """A request of random users with `recent` random items each.

    Args:
        signature: one of the export's.
        rows: of the request.
        user_ids: raw ids.
        item_ids: raw ids.
        recent: items of every row's history.
        k: length of the lists, or number of candidates.
        generator: draws.
    """

    def ids(names: Sequence[str], *shape: int) -> np.ndarray:
        drawn = generator.integers(0, len(names), shape)
        return np.array([names[place] for place in drawn.ravel()], object).reshape(shape)

    inputs = {"user_id": ids(user_ids, rows), "recent_items": ids(item_ids, rows, recent)}
    if signature == SCORE:
        inputs["candidates"] = ids(item_ids, rows, k)
    elif signature != QUERY:
        inputs |= {"exclude_items": ids(item_ids, rows, 1), "k": np.full(rows, k, np.int32)}
    return PredictionRequest(signature, inputs)
