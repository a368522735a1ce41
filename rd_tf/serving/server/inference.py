"""One version of a model, loaded as tensorflow_model_server loads it, and what is asked of it, in batches or alone."""

import collections
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from rd_tf.serving.publishing import WARMUP_FILE
from rd_tf.serving.server.settings import Limits, SessionBatching
from rd_tf.serving.server.wire import (
    ServingError,
    from_tensorflow,
    invalid,
    read_tensor,
    read_text,
)

_log = logging.getLogger("rd_tf.serve")
Tensors = Sequence[np.ndarray]


def count_rows(inputs: Tensors) -> int:
    """Rows of a request.

    Raises:
        ServingError: its inputs differ in them, have none, or there are no rows at all.
    """
    sizes = {len(array) if array.ndim else None for array in inputs}
    rows = sizes.pop()
    if sizes or rows is None:
        raise invalid("a batched request's inputs must all have the same 0th dimension")
    if not rows:
        raise ServingError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "a batched request of no rows is never answered by tensorflow_model_server",
        )
    return rows


def merge(requests: Sequence[Tensors], batching: SessionBatching) -> list[np.ndarray]:
    """The inputs of a batch: those of its requests below each other, filled up with the first row of the last one.

    With `pad_variable_length_inputs` a tensor that is smaller than another request's is padded behind, in all
    dimensions but the first, with its own first element.

    Args:
        requests: the inputs of every request, in the signature's order.
        batching: the rules.

    Raises:
        ServingError: the requests cannot be merged; none of them is answered.
    """
    merged = []
    for tensors in zip(*requests, strict=True):
        if batching.pad_variable_length_inputs:
            if len({tensor.ndim for tensor in tensors}) > 1:
                raise ServingError(
                    grpc.StatusCode.INTERNAL,
                    "requests of one batch differ in the rank of an input, which would crash tensorflow_model_server",
                )
            shape = np.max([tensor.shape[1:] for tensor in tensors], axis=0).astype(int)
            alike = [_padded(tensor, (len(tensor), *shape)) for tensor in tensors]
        elif all(tensor.shape[1:] == tensors[0].shape[1:] for tensor in tensors):
            alike = list(tensors)
        else:
            raise ServingError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "an input's shape differs between requests of a batch and padding is turned off",
            )
        rows = sum(map(len, alike))
        fill = [alike[-1][:1]] * (batching.filled(rows) - rows)
        merged.append(np.concatenate([*alike, *fill]))
    return merged


def _padded(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if np.prod(shape) == tensor.size:
        return tensor.reshape(shape)
    if not tensor.size:
        raise invalid("Got empty tensor in batch of non-empty tensors.")
    padded = np.empty(shape, tensor.dtype)
    # np.full would turn bytes objects into fixed-length strings, which lose zeros at their end.
    padded.fill(tensor.flat[0])
    padded[tuple(map(slice, tensor.shape))] = tensor
    return padded


def split(outputs: Tensors, rows: Sequence[int], batching: SessionBatching) -> list[list[np.ndarray]]:
    """The outputs of every request of a batch.

    Args:
        outputs: of the graph.
        rows: of every request.
        batching: the rules.

    Raises:
        ServingError: an output has not a row for each row of the batch.
    """
    filled = batching.filled(sum(rows))
    if any(output.ndim == 0 or len(output) != filled for output in outputs):
        raise ServingError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "an output's 0th dimension is not the sum of those of the batch's inputs",
        )
    ends = np.cumsum(rows)
    return [[output[end - size : end] for output in outputs] for end, size in zip(ends, rows, strict=True)]


class _Batch:
    def __init__(self) -> None:
        self.opened, self.rows = time.monotonic(), 0
        self.tasks: list[tuple[Tensors, futures.Future]] = []


class SessionBatcher:
    """Collects the requests of a model's version, by signature, and answers them a batch at a time, before the graph.

    Rules: tensorflow_serving/batching/batching_session.cc and batching_util.cc, faults included. Answers to lists of
    different lengths come out wrong or not at all, as there; it is here so that tests and users see that on a laptop.
    """

    def __init__(self, batching: SessionBatching, compute: Callable[[str, Tensors], Tensors]) -> None:
        """Starts the threads.

        Args:
            batching: the rules.
            compute: runs a signature's graph, from inputs to outputs in the signature's order.
        """
        self._batching, self._compute = batching, compute
        self._changed = threading.Condition()
        self._waiting: dict[str, collections.deque[_Batch]] = collections.defaultdict(collections.deque)
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name="batches", daemon=True) for _ in range(batching.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, signature: str, inputs: Tensors, timeout_seconds: float) -> Tensors:
        """Answers a request together with whichever others come.

        Raises:
            ServingError: the request or its batch failed, too many wait, or the time is over.
        """
        rows = count_rows(inputs)
        if rows > self._batching.max_batch_size:
            raise invalid(f"a request of {rows} rows is larger than max_batch_size = {self._batching.max_batch_size}")
        answer: futures.Future = futures.Future()
        with self._changed:
            batches = self._waiting[signature]
            if not batches or batches[-1].rows + rows > self._batching.max_batch_size:
                if len(batches) >= max(1, self._batching.max_enqueued_batches):
                    raise ServingError(grpc.StatusCode.UNAVAILABLE, "the batch scheduling queue is full")
                batches.append(_Batch())
            batches[-1].tasks.append((inputs, answer))
            batches[-1].rows += rows
            self._changed.notify()
        try:
            return answer.result(timeout_seconds)
        except futures.TimeoutError:
            raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "the request waited too long in its batch") from None

    def close(self) -> None:
        """Answers what waits and ends the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (ready := self._next()) is not None:
            self._answer(*ready)

    def _next(self) -> tuple[str, _Batch] | None:
        with self._changed:
            while True:
                soonest = None
                for signature in [*self._waiting]:
                    batches = self._waiting[signature]
                    if not batches:
                        continue
                    left = batches[0].opened + self._batching.batch_timeout_micros / 1e6 - time.monotonic()
                    is_full = len(batches) > 1 or batches[0].rows >= self._batching.max_batch_size
                    if is_full or left <= 0 or self._closed:
                        # The signature is moved to the end, so that a busy one keeps no other waiting.
                        self._waiting[signature] = self._waiting.pop(signature)
                        return signature, batches.popleft()
                    soonest = left if soonest is None else min(soonest, left)
                if self._closed:
                    return None
                self._changed.wait(soonest)

    def _answer(self, signature: str, batch: _Batch) -> None:
        requests = [inputs for inputs, _ in batch.tasks]
        try:
            outputs = self._compute(signature, merge(requests, self._batching))
            answers = split(outputs, [count_rows(inputs) for inputs in requests], self._batching)
        except Exception as error:
            if not isinstance(error, ServingError) or error.code == grpc.StatusCode.INTERNAL:
                _log.error("a batch of %d requests failed: %s", len(requests), error)
            for _, answer in batch.tasks:
                answer.set_exception(error)
            return
        for (_, answer), own in zip(batch.tasks, answers, strict=True):
            answer.set_result(own)


DEFAULT_SIGNATURE = "serving_default"
_PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_VARIABLES = {"VarHandleOp", "VariableV2"}
# tensorflow_model_server refuses a warm-up file with more.
MAX_RECORDS = 1000


class LoadedVersion:
    """A SavedModel in a session of its own.

    Attributes:
        number: the version.
        signatures: signature name -> SignatureDef.
    """

    def __init__(
        self, directory: str | os.PathLike[str], number: int, limits: Limits, batching: SessionBatching | None = None
    ) -> None:
        """Loads a SavedModel.

        Args:
            directory: the SavedModel's.
            number: the version.
            limits: of every request.
            batching: how requests are batched before the graph; None: not at all.

        Raises:
            ServingError: the SavedModel is not whole or cannot be run here.
        """
        self.number = number
        self._limits = limits
        self._lock = threading.Lock()
        self._in_use = 0
        self._graph = tf.Graph()
        # This server is for laptops and CI; with GPUs it would take all of their memory.
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        self._callables: dict[str, Any] = {}
        self._batcher = SessionBatcher(batching, self._compute) if batching else None
        try:
            meta_graph = self._load(Path(directory))
        except Exception as error:
            self.close()
            if isinstance(error, tf.errors.OpError):
                raise from_tensorflow(error) from error
            raise ServingError(grpc.StatusCode.DATA_LOSS, f"{directory} cannot be loaded: {error}") from error
        self.signatures: dict[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def)
        self._runs_python = not _PYTHON_OPERATIONS.isdisjoint(_operations(meta_graph))

    def signature(self, name: str) -> meta_graph_pb2.SignatureDef:
        """A signature by name; the default one for an empty name.

        Raises:
            ServingError: there is none of this name.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, f"serving signature {name!r} not found")
        return self.signatures[name]

    def run(self, signature_name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers a request.

        Args:
            signature_name: empty for the default.
            inputs: input name -> array of exactly the signature's dtype; strings are `bytes` objects.

        Returns:
            Output name -> array.

        Raises:
            ServingError: names, dtypes or rows that do not fit, or the graph failed.
        """
        signature = self.signature(signature_name)
        fed = self._fit(signature, inputs)
        if self._runs_python:
            raise invalid("no OpKernel was registered: the model calls back into the Python that made it")
        name = signature_name or DEFAULT_SIGNATURE
        if self._batcher:
            values = self._batcher.run(name, fed, self._limits.request_timeout_seconds)
        else:
            values = self._compute(name, fed)
        return dict(zip(signature.outputs, map(np.asarray, values), strict=True))

    def _compute(self, name: str, fed: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        try:
            return self._callable(name, self.signatures[name])(*fed)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error

    def acquire(self) -> None:
        """Begins a use; `release` ends it."""
        with self._lock:
            self._in_use += 1

    def release(self) -> None:
        """Ends a use."""
        with self._lock:
            self._in_use -= 1

    @property
    def is_idle(self) -> bool:
        """Whether no request uses the version."""
        return self._in_use == 0

    def close(self) -> None:
        """Frees the session and the graph; the version must be idle."""
        if self._batcher:
            self._batcher.close()
        self._callables.clear()
        self._session.close()
        del self._session, self._graph
        # A graph in Python is full of reference cycles that hold memory of C++. Python's collector does not see that
        # memory, so it would not start by itself.
        gc.collect()

    def _load(self, directory: Path) -> meta_graph_pb2.MetaGraphDef:
        with self._graph.as_default():
            tags = [tf.saved_model.SERVING]
            meta_graph = tf.compat.v1.saved_model.loader.load(self._session, tags, str(directory))
        if not (directory / "variables" / "variables.index").exists() and not _VARIABLES.isdisjoint(
            _operations(meta_graph)
        ):
            # The loader takes such a directory for a model without variables; every request would fail.
            raise FileNotFoundError("its variables are missing")
        return meta_graph

    def _fit(self, signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if unknown := inputs.keys() - signature.inputs.keys():
            raise invalid(f"unknown inputs: {', '.join(sorted(unknown))}")
        fed = []
        for name, wanted in signature.inputs.items():
            array = inputs.get(name)
            if array is None and name in signature.defaults:
                array = read_tensor(signature.defaults[name], self._limits.max_body_bytes)
            if array is None:
                raise invalid(f"missing inputs: {', '.join(sorted(signature.inputs.keys() - inputs.keys()))}")
            dtype = tf.as_dtype(array.dtype)
            if dtype != wanted.dtype:
                raise invalid(f"input {name} must be {tf.as_dtype(wanted.dtype).name}, not {dtype.name}")
            if array.ndim and len(array) > self._limits.max_batch:
                raise invalid(f"input {name} has {len(array)} rows; at most {self._limits.max_batch} are allowed")
            fed.append(array)
        return fed

    def _callable(self, name: str, signature: meta_graph_pb2.SignatureDef) -> Any:
        with self._lock:
            if name not in self._callables:
                options = config_pb2.CallableOptions(
                    feed=[tensor.name for tensor in signature.inputs.values()],
                    fetch=[tensor.name for tensor in signature.outputs.values()],
                )
                options.run_options.timeout_in_ms = int(1000 * self._limits.request_timeout_seconds)
                # Session.run checks shapes against the placeholders', which tensorflow_model_server does not, and takes
                # several times as long.
                self._callables[name] = self._session._make_callable_from_options(options)
            return self._callables[name]


def _operations(meta_graph: meta_graph_pb2.MetaGraphDef) -> set[str]:
    functions = meta_graph.graph_def.library.function
    nodes = [*meta_graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    return {node.op for node in nodes}


def predict(version: LoadedVersion, request: predict_pb2.PredictRequest, limits: Limits) -> dict[str, np.ndarray]:
    """Answers a PredictRequest with the outputs it asks for: all, or those of its `output_filter`.

    Raises:
        ServingError: the request does not fit the signature, or the graph failed.
    """
    signature_name = request.model_spec.signature_name
    known, wanted = version.signature(signature_name).outputs, request.output_filter
    if unknown := set(wanted) - known.keys():
        raise invalid(f"output_filter names unknown outputs: {', '.join(sorted(unknown))}")
    if len(set(wanted)) < len(wanted):
        raise invalid("output_filter names an output twice")
    inputs = {
        name: read_tensor(proto, limits.max_body_bytes, limits.max_values) for name, proto in request.inputs.items()
    }
    outputs = version.run(signature_name, inputs)
    return {output: array for output, array in outputs.items() if not wanted or output in wanted}


# No export of this package has a signature that takes serialized tf.train.Example. What follows is the least that gives
# the answers of tensorflow_model_server that tests/serving/data/recorded_answers.json holds.


def classify(
    version: LoadedVersion, signature_name: str, examples: Sequence[bytes]
) -> tuple[list[list[str]], np.ndarray]:
    """Labels and scores `[b, n] float32`, by a signature whose outputs are `classes` `[b, n] string` and `scores`.

    Args:
        version: who answers.
        signature_name: empty for the default.
        examples: serialized `tf.train.Example` each.

    Raises:
        ServingError: the signature is of another kind, or the graph failed.
    """
    outputs = _run_on_examples(version, signature_name, examples, {"classes", "scores"})
    labels, scores = outputs["classes"], outputs["scores"]
    if labels.shape != scores.shape or scores.ndim != 2 or len(scores) != len(examples):
        raise invalid(f"classes and scores must both be of shape [{len(examples)}, n]")
    # A label is a string in the answer's proto, which must be UTF-8.
    return [[label.decode("utf-8", "replace") for label in row] for row in labels.tolist()], scores


def regress(version: LoadedVersion, signature_name: str, examples: Sequence[bytes]) -> np.ndarray:
    """A value an example, `[b] float32`, by a signature whose output is `outputs` `[b]` or `[b, 1]`; see `classify`."""
    values = _run_on_examples(version, signature_name, examples, {"outputs"})["outputs"]
    if values.shape not in {(len(examples),), (len(examples), 1)}:
        raise invalid(f"outputs must be of shape [{len(examples)}] or [{len(examples)}, 1], not {list(values.shape)}")
    return values.ravel()


def read_examples(document: Mapping[str, Any]) -> list[bytes]:
    """The `examples` of a REST request, serialized.

    Raises:
        ServingError: there are none, they share a `context`, or a feature is no list of one kind of value.
    """
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples or not all(isinstance(example, dict) for example in examples):
        raise invalid("'examples' must be a list of at least one object")
    if "context" in document:
        raise invalid("a 'context' that examples share is not supported")
    try:
        features = [{name: _feature(value) for name, value in example.items()} for example in examples]
        return [tf.train.Example(features={"feature": named}).SerializeToString() for named in features]
    except ValueError as error:
        raise invalid(f"an example cannot be read: {error}") from error


def _feature(value: Any) -> tf.train.Feature:
    cells = value if isinstance(value, list) else [value]
    if all(isinstance(cell, int) for cell in cells):
        return tf.train.Feature(int64_list={"value": map(int, cells)})
    if all(isinstance(cell, float) for cell in cells):
        return tf.train.Feature(float_list={"value": cells})
    return tf.train.Feature(bytes_list={"value": map(read_text, cells)})


def _run_on_examples(
    version: LoadedVersion, signature_name: str, examples: Sequence[bytes], outputs: set[str]
) -> dict[str, np.ndarray]:
    signature = version.signature(signature_name)
    if len(signature.inputs) != 1 or signature.outputs.keys() != outputs:
        raise invalid(f"a signature with one input and the outputs {', '.join(sorted(outputs))} was expected")
    if not examples:
        raise invalid("the input holds no list of examples")
    serialized = np.empty(len(examples), object)
    serialized[:] = examples
    return version.run(signature_name, {next(iter(signature.inputs)): serialized})


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
        if not log.HasField("predict_log"):
            raise invalid(f"a warm-up request is of the unsupported kind {log.WhichOneof('log_type')}")
        predict(version, log.predict_log.request, limits)
    return count


def _logs(file: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            yield prediction_log_pb2.PredictionLog.FromString(record)
    except Exception as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error
        raise ServingError(grpc.StatusCode.DATA_LOSS, f"{file} cannot be read: {reason}") from error
