"""A model server: models, and the interfaces that are turned on."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig
from waitress.server import create_server

from rd_tf.serving.server.interfaces import Metrics, ModelService, PredictionService, RestApplication
from rd_tf.serving.server.models import ModelStore
from rd_tf.serving.server.settings import Limits, SessionBatching, address_of
from rd_tf.storage import InputError

# Seconds a connection may stay silent, in the middle of a request or between two.
_SILENCE_SECONDS = 60
_CONNECTIONS = 1000
# Requests waiting for a thread; more are refused with RESOURCE_EXHAUSTED.
_WAITING_A_THREAD = 128


class HttpServer:
    """waitress in a thread of its own."""

    def __init__(
        self, application: RestApplication, listening: socket.socket, threads: int, max_body_bytes: int
    ) -> None:
        """Starts to answer.

        Args:
            application: who answers.
            listening: a bound socket; the server closes it.
            threads: requests that are worked on at a time.
            max_body_bytes: a longer body is refused with 413 before it is read.
        """
        # waitress warns of every request that waits for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._server = create_server(
            application,
            sockets=[listening],
            threads=threads,
            # waitress also refuses a body of exactly this length.
            max_request_body_size=max_body_bytes + 1,
            channel_timeout=_SILENCE_SECONDS,
            connection_limit=_CONNECTIONS,
            # select(), the default, takes no file descriptor above 1023.
            asyncore_use_poll=True,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)
        self._thread.start()

    def close(self, patience_seconds: float) -> None:
        """Takes no more connections, lets requests end for a while, and closes everything."""
        self._server.trigger.pull_trigger(self._stop_accepting)
        deadline = time.monotonic() + patience_seconds
        while self._server.active_channels and time.monotonic() < deadline:
            # Only the server's own thread may touch its channels.
            self._server.trigger.pull_trigger(self._close_idle_channels)
            time.sleep(0.02)
        # The server's thread may find the call, and close the trigger, before this thread has pulled it.
        with contextlib.suppress(OSError):
            self._server.trigger.pull_trigger(self._close_everything)
        self._thread.join(patience_seconds)
        self._server.task_dispatcher.shutdown(timeout=1)

    def _stop_accepting(self) -> None:
        self._server.accepting = False
        self._server.del_channel()
        self._server.socket.close()

    def _close_idle_channels(self) -> None:
        for channel in [*self._server.active_channels.values()]:
            if not channel.requests and not channel.request and not channel.total_outbufs_len:
                channel.handle_close()

    def _close_everything(self) -> None:
        for dispatcher in [*self._server._map.values()]:
            dispatcher.close()


def start_grpc_server(
    prediction: PredictionService, model: ModelService, host: str, port: int, threads: int, max_body_bytes: int
) -> grpc.Server:
    """Starts to answer.

    Args:
        prediction: answers PredictionService.
        model: answers ModelService.
        host: address to listen on.
        port: port to listen on.
        threads: requests that are worked on at a time.
        max_body_bytes: a longer message is refused with RESOURCE_EXHAUSTED.

    Raises:
        InputError: the port is taken.
    """
    # gRPC logs a traceback for every message that is no proto, which is the client's mistake.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    options = [
        ("grpc.max_receive_message_length", max_body_bytes),
        ("grpc.max_send_message_length", -1),
        # With SO_REUSEPORT a second server could take the same port, and each would get some of the requests.
        ("grpc.so_reuseport", 0),
    ]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="grpc")
    server = grpc.server(pool, options=options, maximum_concurrent_rpcs=threads * _WAITING_A_THREAD)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
    address = address_of(host, port)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise InputError(f"cannot listen on {address}: address already in use") from None
    server.start()
    return server


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
