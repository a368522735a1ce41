"""What one request may cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a request.

    Attributes:
        max_body_bytes: of an HTTP body or a gRPC message, and of every tensor that a request describes.
        max_batch: rows, the first dimension of an input.
        request_timeout_seconds: of the graph's run.
    """

    max_body_bytes: int = 16 << 20
    max_batch: int = 1024
    request_timeout_seconds: float = 30.0
