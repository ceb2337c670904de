"""Silent connections of other accounts do not keep the owner's browser out."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from common.quiet_http import QUIET_HTTP
from fl_client.loopback import RoomyProtocol

pytestmark = pytest.mark.network


class Small(RoomyProtocol):
    most = 4
    header_seconds = 1.0


class Patient(Small):
    header_seconds = 60.0


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body() or b"hello")


patient = pytest.mark.parametrize("protocol", [Patient])
hurried = pytest.mark.parametrize("protocol", [Small])


@pytest.fixture
def port(protocol: type[RoomyProtocol]) -> Iterator[int]:
    app = Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, **QUIET_HTTP, timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def connect(port: int) -> Iterator:
    with ExitStack() as held:

        def connected(first: bytes = b"") -> socket.socket:
            line = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            line.sendall(first)
            time.sleep(0.02)
            return line

        yield connected


def is_closed(line: socket.socket, within: float) -> bool:
    line.settimeout(within)
    try:
        return line.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def answer(page: http.client.HTTPConnection, body: bytes | None = None) -> tuple[int, bytes]:
    page.request("POST" if body else "GET", "/", body)
    got = page.getresponse()
    return got.status, got.read()


@patient
@pytest.mark.parametrize("first", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"])
def test_however_many_hold_connections_the_owners_page_is_answered(connect, port: int, first: bytes) -> None:
    held = [connect(first) for _ in range(12)]
    page = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    assert answer(page) == (200, b"hello")
    assert is_closed(held[0], 5)
    assert not is_closed(held[-1], 0.1)
    page.close()


@patient
def test_who_never_asked_leaves_before_a_page_that_is_idle(connect, port: int) -> None:
    page = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    assert answer(page) == (200, b"hello")
    line = page.sock
    for _ in range(12):
        connect()
    assert answer(page, b"a picture") == (200, b"a picture")
    assert page.sock is line
    page.close()


@hurried
@pytest.mark.parametrize("first", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /"])
def test_who_does_not_finish_a_requests_beginning_is_hung_up_on(connect, first: bytes) -> None:
    line = connect(first)
    if b"\r\n\r\n" in first:
        assert b"200" in line.recv(64)
        line.recv(4096)
        line.sendall(b" HTT")
    assert is_closed(line, 5)


@hurried
def test_a_slow_body_and_an_idle_page_are_waited_for(connect) -> None:
    line = connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
    time.sleep(1.5)
    line.sendall(b"def")
    assert b"200" in line.recv(4096)
    time.sleep(1.5)
    line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in line.recv(4096)
