"""An HTTP/1.1 connection that costs its process little, and can send what is no HTTP."""

import re
import socket

_CHUNK = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def post(path: str, body: bytes, declared_length: int | None = None) -> bytes:
    """A whole POST request; `declared_length` stands in place of the body's own."""
    length = len(body) if declared_length is None else declared_length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    return head.encode() + b"\r\n" + body


class HttpConnection:
    """One connection, for one request at a time.

    Args:
        port: on this machine.
        timeout_seconds: of every wait for bytes.
    """

    def __init__(self, port: int, timeout_seconds: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Sends bytes and reads an answer with a Content-Length: its status and body.

        Raises:
            ConnectionError: the server closed the connection before a whole answer.
            TimeoutError: it neither answered nor closed.
        """
        self.send(request)
        return self.read()

    def send(self, data: bytes) -> None:
        """The first half of `ask`."""
        self._socket.sendall(data)

    def end_sending(self) -> None:
        """Tells the server that no more bytes will come."""
        self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> tuple[int, bytes]:
        """The second half of `ask`."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        head, parts = data[:end], [data[end + 4 :]]
        found = _LENGTH.search(head)
        if found is None:
            raise ConnectionError(f"an answer without Content-Length: {head[:100]!r}")
        missing = int(found[1]) - len(parts[0])
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        return int(head.split(b" ", 2)[1]), b"".join(parts)

    def read_to_end(self) -> int:
        """How many bytes come until the server closes the connection."""
        count = 0
        try:
            while True:
                count += len(self._receive())
        except ConnectionError:
            return count

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data
