"""HTTP on 127.0.0.1 for the owner's browser, which other accounts of the machine can connect to as well.

`fl-client capture --browser` and `fl-client webcam --serve` listen with it. Nobody is told that the server is busy, which the
owner's page could not tell from another program's word: the connection that has been silent for longest makes room.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class RoomyProtocol(H11Protocol):
    """Uvicorn's protocol that hangs up on whoever does not finish a request's beginning, and on the silent when many come.

    Attributes:
        most: connections that are held at once.
        header_seconds: until a request's headers must be complete, from the connection or the request's first byte on.
    """

    most: int = 64
    header_seconds: float = 5.0
    _deadline: asyncio.TimerHandle | None = None
    _heard = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, and make room for whoever comes next."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._watch()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a request has begun in full."""
        self._heard = self.loop.time()
        super().data_received(data)
        if not self._between:
            self._stop_watch()
        elif self._deadline is None:
            self._watch()

    @property
    def _between(self) -> bool:
        """Whether no request is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _waits(self) -> bool:
        """Whether it is the peer's turn: to ask, to send the rest of a body, or to read."""
        return self._between or self.cycle.more_body or self.flow.write_paused

    def _watch(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _stop_watch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def _make_room(self) -> None:
        """Of too many, close one that has never asked anything, else any whose turn it is: the one silent for longest."""
        held = [one for one in self.connections if isinstance(one, RoomyProtocol) and not one.transport.is_closing()]
        if len(held) > self.most:
            silent = [one for one in held if one._waits and one is not self]
            first = min(silent, key=lambda one: (one.cycle is not None, one._heard), default=self)
            first.transport.abort()
