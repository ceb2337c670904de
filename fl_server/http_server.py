"""Uvicorn on one socket, in a thread of its own, with limits that it does not have by itself. `fl_server.superlink` runs two."""

import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from common.errors import RunError
from common.quiet_http import QUIET_HTTP
from fl_server.connections import ImpatientProtocol, Listener
from fl_server.seats import Seats

MakeTls = Callable[[uvicorn.Config, Callable[[], ssl.SSLContext]], ssl.SSLContext]
"""As uvicorn's `ssl_context_factory`."""


PER_ADDRESS = 256


def most_connections() -> int:
    """That a port may hold in all: a quarter of the files that this process may have open."""
    return max(PER_ADDRESS, min(16_384, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))


def listen(host: str, port: int, seats: Seats | None = None) -> socket.socket:
    """A socket bound to host and port; 0 takes a free one.

    Args:
        seats: for connections; by default PER_ADDRESS for each address and `most_connections()` in all.

    Raises:
        RunError: the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = Listener(family, kind, proto, seats or Seats(most_connections(), PER_ADDRESS))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
    except OSError as error:
        raise RunError(
            f"The server cannot listen on {host} port {port}: {error.strerror}. Choose another --host or --port."
        ) from error
    return listener


class HttpServer:
    """Uvicorn on one socket, in a thread of its own."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        tls: MakeTls | None,
    ) -> None:
        self._socket = listener
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            loop="fl_server.connections:HurriedLoop",
            **QUIET_HTTP,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=3,
            ssl_context_factory=tls,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RunError(f"The server's port {self.port} did not open; the log says why.")
            time.sleep(0.02)

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(10)
        self._socket.close()
