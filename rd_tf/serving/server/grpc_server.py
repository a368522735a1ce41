"""The gRPC server under the gRPC interface."""

import logging
from concurrent.futures import ThreadPoolExecutor

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from rd_tf.serving.server.grpc_services import ModelService, PredictionService
from rd_tf.serving.server.listening_socket import address_of
from rd_tf.storage import InputError

# Requests waiting for a thread; more are refused with RESOURCE_EXHAUSTED.
_WAITING_A_THREAD = 128


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
    # It logs a traceback for every message that is no proto, which is the client's mistake.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    options = [
        ("grpc.max_receive_message_length", max_body_bytes),
        ("grpc.max_send_message_length", -1),
        # Else two servers share a port, and each gets some of the requests.
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
