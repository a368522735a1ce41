"""Request batching as tensorflow_model_server does it before the graph: with its rules, faults included.

Rules: tensorflow_serving/batching/batching_session.cc and batching_util.cc. Answers to lists of different lengths come
out wrong or not at all, as there; it is here so that tests and users see that on a laptop.
"""

import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import grpc
import numpy as np

from rd_tf.serving.server.settings import SessionBatching
from rd_tf.serving.server.wire import ServingError, invalid

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
    """Collects the requests of a model's version, by signature, and answers them a batch at a time."""

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
