"""A model server: models, and the interfaces that are turned on."""

import socket
from collections.abc import Sequence

from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from rd_tf.serving.server.batching_parameters import SessionBatching
from rd_tf.serving.server.grpc_server import start_grpc_server
from rd_tf.serving.server.grpc_services import ModelService, PredictionService
from rd_tf.serving.server.http_server import HttpServer
from rd_tf.serving.server.limits import Limits
from rd_tf.serving.server.metrics import Metrics
from rd_tf.serving.server.model_store import ModelStore
from rd_tf.serving.server.rest import RestApplication


class ModelServer:
    """Answers from its making until `close`.

    Attributes:
        store: the models.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_socket: socket.socket | None = None,
        poll_seconds: float = 1.0,
        threads: int = 8,
        limits: Limits | None = None,
        batching: SessionBatching | None = None,
    ) -> None:
        """Loads the models, then listens.

        Args:
            models: what to serve.
            host: address of gRPC.
            port: port of gRPC; 0: no gRPC.
            rest_socket: a bound socket for REST; none: no REST.
            poll_seconds: between two looks for new versions; 0: none after the first.
            threads: requests that each interface works on at a time.
            limits: of every request.
            batching: how requests are batched before the graphs; None: not at all.

        Raises:
            InputError: the port of gRPC is taken.
        """
        limits = limits or Limits()
        self._patience_seconds = limits.request_timeout_seconds
        self.store = ModelStore(models, limits, poll_seconds, batching)
        metrics = Metrics()
        self._grpc = None
        if port:
            services = PredictionService(self.store, metrics), ModelService(self.store, metrics)
            self._grpc = start_grpc_server(*services, host, port, threads, limits.max_body_bytes)
        self._http = None
        if rest_socket:
            application = RestApplication(self.store, metrics)
            self._http = HttpServer(application, rest_socket, threads, limits.max_body_bytes)

    def close(self) -> None:
        """Takes no more requests, lets those under way end, unloads the models."""
        stopped = self._grpc.stop(self._patience_seconds) if self._grpc else None
        if self._http:
            self._http.close(self._patience_seconds)
        if stopped:
            stopped.wait()
        self.store.close(self._patience_seconds)
