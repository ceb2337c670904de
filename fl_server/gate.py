"""The outermost door of the server's HTTP: what is not on the list does not exist. `fl_server.superlink` puts it before Flower.

It decides by method, path and headers before a byte of the body is read, then reads the body up to a limit and a deadline.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Route:
    """What one method and path may carry.

    Attributes:
        largest_body: bytes.
        seconds: by when the whole body must have arrived.
        inspected: whether the body is looked at before it is let in.
    """

    largest_body: int
    seconds: float
    inspected: bool = False


@dataclass(frozen=True)
class Refusal:
    """An answer given at the door: an HTTP status, and a reason for a program to read."""

    status: int
    reason: str


Admit = Callable[[str, Headers], Refusal | None]
"""Given path and headers, says why a request is refused before its body is read; None lets it in."""


Inspect = Callable[[str, Headers, bytes], Refusal | None]
"""Given path, headers and the whole body of an admitted request, says why it is refused; None lets it in."""


class _TooLarge(Exception):
    pass


class Gate:
    """ASGI middleware with a list of what is open.

    Args:
        app: what the listed routes lead to.
        routes: by method and path.
        admit: looks at the headers of a listed request; runs in a thread.
        inspect: looks at the body of a request whose route says so; runs in a thread.
        pages: answers GET and HEAD for everything else; None answers 404.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Mapping[tuple[str, str], Route],
        admit: Admit,
        inspect: Inspect = lambda path, headers, body: None,
        pages: ASGIApp | None = None,
    ) -> None:
        self._app, self._routes, self._admit, self._inspect, self._pages = app, routes, admit, inspect, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._other(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = await run_in_threadpool(self._admit, scope["path"], headers)
        if refusal is None and not _fits(headers.get("content-length"), route.largest_body):
            refusal = Refusal(413, "too-large")
        if refusal is None:
            try:
                async with asyncio.timeout(route.seconds):
                    body = await _read(receive, route.largest_body)
            except _TooLarge:
                refusal = Refusal(413, "too-large")
            except TimeoutError:
                refusal = Refusal(408, "too-slow")
            else:
                if body is None:
                    return
                if route.inspected:
                    refusal = await run_in_threadpool(self._inspect, scope["path"], headers, body)
                if refusal is None:
                    await self._app(scope, _replay(body, receive), send)
                    return
        await _refuse(send, refusal)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pages is not None and scope["method"] in ("GET", "HEAD"):

            async def nothing() -> Message:
                return {"type": "http.request", "body": b"", "more_body": False}

            await self._pages(scope, nothing, send)
        else:
            await _refuse(send, Refusal(404, "not-found"))


def _fits(length: str | None, largest: int) -> bool:
    return length is None or (length.isascii() and length.isdigit() and len(length) < 19 and int(length) <= largest)


async def _read(receive: Receive, largest: int) -> bytes | None:
    """The whole body, however it is framed; None if the peer went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > largest:
            raise _TooLarge
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    whole: list[bytes] = [body]

    async def again() -> Message:
        if whole:
            return {"type": "http.request", "body": whole.pop(), "more_body": False}
        return await receive()

    return again


async def _refuse(send: Send, refusal: Refusal) -> None:
    content = json.dumps({"reason": refusal.reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class ImpatientProtocol(HttpToolsProtocol):
    """Uvicorn's protocol that hangs up on a peer whose request line and headers are slow or endless.

    Uvicorn alone waits for them for ever, at any size; bodies and idle connections have their own limits.

    Attributes:
        header_seconds: until the headers of a request must be complete.
        header_bytes: that they may have, in all.
        per_address: connections that one address may hold at a time.
    """

    header_seconds: float = 20.0
    header_bytes: int = 64 * 1024
    per_address: int = 256
    _deadline: asyncio.TimerHandle | None = None
    _seen = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._await_headers()
        address = self.client[0] if self.client else None
        if sum(1 for other in self.connections if other.client and other.client[0] == address) > self.per_address:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._headers_came()
        super().connection_lost(exc)

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
