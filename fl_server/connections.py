"""Connections to the server's HTTP: how many there may be, and how slow. `fl_server.http_server` listens with these."""

import asyncio
import socket
import weakref
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fl_server.seats import Seats, network_of

HANDSHAKE_SECONDS, GOODBYE_SECONDS = 10.0, 5.0


class Listener(socket.socket):
    """A socket to listen on that turns a connection away as it comes, if its address or all together hold too many.

    A connection counts from its first byte: a TLS handshake that is never finished holds a place, too.
    """

    def __init__(self, family: int, kind: int, proto: int, seats: Seats) -> None:
        super().__init__(family, kind, proto)
        self._seats = seats

    def accept(self) -> tuple[socket.socket, Any]:
        """As a socket's own.

        Raises:
            ConnectionAbortedError: who came was turned away; an event loop takes it for one who has left already.
        """
        connection, address = super().accept()
        who = network_of(str(address[0]))
        if not self._seats.take(who):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            raise ConnectionAbortedError
        return _Counted(connection, self._seats, who), address


class _Counted(socket.socket):
    """An accepted connection that gives its place back when it is closed."""

    def __init__(self, connection: socket.socket, seats: Seats, who: str) -> None:
        super().__init__(connection.family, connection.type, connection.proto, fileno=connection.detach())
        self._leave = weakref.finalize(self, seats.leave, who)
        self._leave.atexit = False

    def close(self) -> None:
        self._leave()
        super().close()


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers cut off peers that do not finish TLS's handshake or its end.

    Uvicorn passes no such limits on, and asyncio's own are 60 and 30 seconds.
    """

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        """As asyncio's."""
        if options.get("ssl") is not None:
            options |= {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": GOODBYE_SECONDS}
        return await super().create_server(*args, **options)


class ImpatientProtocol(HttpToolsProtocol):
    """Uvicorn's protocol that hangs up on a peer whose headers are slow or endless, or who does not read the answer.

    Uvicorn alone waits for both for ever, at any size; bodies and idle connections have their own limits.

    Attributes:
        header_seconds: until the headers of a request must be complete.
        header_bytes: that they may have, in all.
        read_seconds: within which the peer must read some of what waits for it.
    """

    header_seconds: float = 20.0
    header_bytes: int = 64 * 1024
    read_seconds: float = 120.0
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _seen = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._headers_came()
        self._stop_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer reads more slowly than the answer is written."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """The peer has read some of it."""
        self._stop_unread()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete."""
        self._seen += len(data)
        super().data_received(data)
        if self._deadline is not None and self._seen > self.header_bytes:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """The request is on its way; the gate watches its body."""
        self._headers_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Watch the next request of this connection."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._await_headers()

    def _await_headers(self) -> None:
        self._headers_came()
        self._deadline = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _headers_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline, self._seen = None, 0

    def _await_reader(self) -> None:
        self._stop_unread()
        waiting = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.read_seconds, self._look_at_reader, waiting)

    def _look_at_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._await_reader()
        else:
            self.transport.abort()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._unread = None
