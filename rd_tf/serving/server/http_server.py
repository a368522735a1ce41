"""The HTTP server under the REST interface."""

import logging
import socket
import threading
import time

from waitress.server import create_server

from rd_tf.serving.server.rest import RestApplication

# Seconds a connection may stay silent, in the middle of a request or between two.
_SILENCE_SECONDS = 60
_CONNECTIONS = 1000


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
        # It warns of every request that waits for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._server = create_server(
            application,
            sockets=[listening],
            threads=threads,
            # waitress refuses a body of exactly this length, too.
            max_request_body_size=max_body_bytes + 1,
            channel_timeout=_SILENCE_SECONDS,
            connection_limit=_CONNECTIONS,
            # select() ends at file descriptor 1024.
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
            # Channels belong to the server's thread.
            self._server.trigger.pull_trigger(self._close_idle_channels)
            time.sleep(0.02)
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
