"""Why a request was not answered."""

from http import HTTPStatus

import grpc
import tensorflow as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What tensorflow_model_server answers over HTTP; every other code is a 500.
_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}


class ServingError(Exception):
    """A request or a model version that cannot be used.

    Attributes:
        code: gRPC's status code.
        message: one sentence for the client.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def http_status(self) -> HTTPStatus:
        """The HTTP status that goes with the code."""
        return _HTTP.get(self.code, HTTPStatus.INTERNAL_SERVER_ERROR)


def invalid(message: str) -> ServingError:
    """The error of a request that cannot be right for any state of the server."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """The error of a request for a model or version that is not served."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def from_tensorflow(error: tf.errors.OpError) -> ServingError:
    """An error of the graph, with TensorFlow's own code and message."""
    return ServingError(_CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)
