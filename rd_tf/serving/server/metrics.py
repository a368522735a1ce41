"""Counts and latencies in Prometheus' text format."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from rd_tf.serving.server.serving_error import ServingError

PATH = "/monitoring/prometheus/metrics"


class Metrics:
    """Metrics of one server, under tensorflow_model_server's names (prometheus_client appends `_total` to a count)."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            ":tensorflow:serving:request_count", "Requests.", ["model_name", "status"], registry=self._registry
        )
        self._latency = Histogram(
            ":tensorflow:serving:request_latency", "Seconds a request.", ["model_name", "API"], registry=self._registry
        )

    @contextmanager
    def observe(self, model_name: str, api: str) -> Iterator[None]:
        """Counts a request by how the block ends.

        Args:
            model_name: must be one of the server's models: every name is kept for good.
            api: such as `predict`.
        """
        started, code = time.perf_counter(), grpc.StatusCode.OK
        try:
            yield
        except ServingError as error:
            code = error.code
            raise
        except BaseException:
            code = grpc.StatusCode.INTERNAL
            raise
        finally:
            self._requests.labels(model_name, code.name).inc()
            self._latency.labels(model_name, api).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """What a scrape gets."""
        return generate_latest(self._registry)
