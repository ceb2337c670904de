"""The outermost door of the server's HTTP: what is not on the list does not exist. `fl_server.superlink` puts it before Flower.

It decides by method, path and headers before a byte of the body is read, then reads the body up to a limit and a deadline.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fl_server.seats import Seats, network_of

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Route:
    """What one method and path may carry.

    Attributes:
        largest_body: bytes.
        seconds: by when the whole body must have arrived.
        inspected: whether the body is looked at before it is let in.
        seats: for bodies under way, by sender, or by address for what is posted to the pages; None sets no bound.
        admit: for what is posted to the pages: looks at path and headers before the body is read.
    """

    largest_body: int
    seconds: float
    inspected: bool = False
    seats: Seats | None = None
    admit: "Admit | None" = None


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
        sender: whose body it is, for a route's seats.
        pages: answers GET and HEAD for everything else, and sees no body of them; None answers 404.
        page_posts: by path, what else is posted to `pages`; it decides itself who may.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Mapping[tuple[str, str], Route],
        admit: Admit,
        inspect: Inspect = lambda path, headers, body: None,
        sender: Callable[[Headers], str] = lambda headers: "",
        pages: ASGIApp | None = None,
        page_posts: Mapping[str, Route] | None = None,
    ) -> None:
        self._app, self._routes, self._admit, self._inspect, self._sender = app, routes, admit, inspect, sender
        self._pages, self._page_posts = pages, page_posts or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        method, path = scope["method"], scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        route = self._routes.get((method, path))
        if route is not None:
            refusal = await run_in_threadpool(self._admit, path, headers)
            await self._pass(route, refusal, self._app, scope, headers, receive, send)
        elif self._pages is not None and method in ("GET", "HEAD"):
            await self._pages(scope, _bodyless(receive), send)
        elif self._pages is not None and method == "POST" and path in self._page_posts:
            route = self._page_posts[path]
            refusal = route.admit(path, headers) if route.admit else None
            await self._pass(route, refusal, self._pages, scope, headers, receive, send)
        else:
            await _refuse(send, Refusal(404, "not-found"))

    async def _pass(
        self, route: Route, refusal: Refusal | None, app: ASGIApp, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        """Read the body as the route allows, and hand the request on; or refuse it."""
        if refusal is None and not _fits(headers.get("content-length"), route.largest_body):
            refusal = Refusal(413, "too-large")
        if refusal is not None:
            await _refuse(send, refusal)
            return
        sender = self._sender(headers) if app is self._app else network_of((scope.get("client") or ("",))[0])
        if route.seats is not None and not route.seats.take(sender):
            await _refuse(send, Refusal(503, "busy"))
            return
        try:
            body = await self._body(route, scope["path"], headers, receive)
            if isinstance(body, Refusal):
                await _refuse(send, body)
            elif body is not None:
                await app(scope, _replay(body, receive), send)
        finally:
            if route.seats is not None:
                route.seats.leave(sender)

    async def _body(self, route: Route, path: str, headers: Headers, receive: Receive) -> bytes | Refusal | None:
        """The body, or why it is refused; None if the peer went away."""
        try:
            async with asyncio.timeout(route.seconds):
                body = await _read(receive, route.largest_body)
        except _TooLarge:
            return Refusal(413, "too-large")
        except TimeoutError:
            return Refusal(408, "too-slow")
        refusal = await run_in_threadpool(self._inspect, path, headers, body) if route.inspected and body is not None else None
        return refusal or body


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


def _bodyless(receive: Receive) -> Receive:
    """An empty body, then nothing until the peer goes away: a page that streams waits for that."""
    began = False

    async def again() -> Message:
        nonlocal began
        if not began:
            began = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    return again


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
