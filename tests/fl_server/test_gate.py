"""The door in front of Flower: what it lets in, and for how long it waits."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from fl_server.gate import Gate, ImpatientProtocol, Refusal, Route

ROUTES = {("POST", "/open"): Route(1000, 0.3), ("POST", "/shut"): Route(1000, 0.3)}


class Application:
    """Answers with the length of the body, and remembers it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(len(message["body"])).encode()})


def admit(path: str, headers: Any) -> Refusal | None:
    return Refusal(401, "shut") if path == "/shut" else None


def answer(
    gate: Gate, method: str, path: str, chunks: list[bytes], headers: dict[str, str] | None = None, pause: float = 0
) -> int:
    """The status with which `gate` answers one request whose body comes in chunks."""
    sent: list[Message] = []
    left = list(chunks)

    async def receive() -> Message:
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    asyncio.run(gate({"type": "http", "method": method, "path": path, "headers": raw}, receive, send))
    return int(sent[0]["status"])


def test_a_listed_route_gets_the_whole_body_in_one_piece() -> None:
    app = Application()
    assert answer(Gate(app, ROUTES, admit), "POST", "/open", [b"a" * 400, b"b" * 600]) == 200
    assert app.bodies == [b"a" * 400 + b"b" * 600]


@pytest.mark.parametrize(("method", "path"), [("GET", "/open"), ("POST", "/open/"), ("POST", "/other"), ("POST", "//open")])
def test_what_is_not_listed_does_not_exist(method: str, path: str) -> None:
    app = Application()
    assert answer(Gate(app, ROUTES, admit), method, path, [b""]) == 404
    assert app.bodies == []


def test_pages_answer_reading_methods_and_see_no_body() -> None:
    pages = Application()
    gate = Gate(Application(), ROUTES, admit, pages=pages)
    assert answer(gate, "GET", "/", [b"much"]) == 200
    assert answer(gate, "DELETE", "/", [b""]) == 404
    assert pages.bodies == [b""]


def test_a_refused_request_has_its_body_left_unread() -> None:
    app = Application()
    assert answer(Gate(app, ROUTES, admit), "POST", "/shut", []) == 401


@pytest.mark.parametrize("length", ["1001", "99999999999999999999999", "-1", "1e3", "\u0661"])
def test_a_length_above_the_limit_or_that_is_no_number_is_refused_unread(length: str) -> None:
    assert (
        answer(Gate(Application(), ROUTES, admit), "POST", "/open", [], {"content-length": length.encode().decode("latin-1")})
        == 413
    )


def test_a_body_without_a_length_is_refused_once_it_is_too_long() -> None:
    app = Application()
    assert answer(Gate(app, ROUTES, admit), "POST", "/open", [b"a" * 600, b"a" * 600, b"never read"]) == 413
    assert app.bodies == []


def test_a_body_that_does_not_pass_inspection_goes_no_further() -> None:
    app = Application()
    routes = {("POST", "/open"): Route(1000, 0.3, inspected=True)}
    gate = Gate(app, routes, admit, lambda path, headers, body: Refusal(400, "no") if b"evil" in body else None)
    assert answer(gate, "POST", "/open", [b"so ev", b"il"]) == 400
    assert answer(gate, "POST", "/open", [b"fine"]) == 200
    assert app.bodies == [b"fine"]


def test_a_body_that_trickles_in_is_cut_off() -> None:
    assert answer(Gate(Application(), ROUTES, admit), "POST", "/open", [b"a"] * 100, pause=0.02) == 408


class Hurried(ImpatientProtocol):
    header_seconds = 0.3
    header_bytes = 2000


class Few(ImpatientProtocol):
    per_address = 3


@contextmanager
def served(app: Any, protocol: type[ImpatientProtocol] = Hurried) -> Iterator[int]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def hung_up(connection: socket.socket) -> bool:
    connection.settimeout(5)
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.network
@pytest.mark.parametrize("said", [b"", b"POST /open HT", b"POST /open HTTP/1.1\r\nhost: x\r\nslow: "])
def test_a_peer_that_does_not_finish_its_headers_is_hung_up_on(said: bytes) -> None:
    with served(Gate(Application(), ROUTES, admit)) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(said)
        assert hung_up(connection)


@pytest.mark.network
def test_endless_headers_are_hung_up_on() -> None:
    with served(Gate(Application(), ROUTES, admit)) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /open HTTP/1.1\r\nhost: x\r\nlong: " + b"a" * 5000)
        assert hung_up(connection)


@pytest.mark.network
def test_a_second_request_on_a_connection_has_the_same_deadline() -> None:
    with served(Gate(Application(), ROUTES, admit)) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab")
        assert b"200" in connection.recv(4096)
        connection.sendall(b"POST /open HTTP/1.1\r\nslow")
        assert hung_up(connection)


@pytest.mark.network
def test_one_address_holds_only_so_many_connections() -> None:
    with served(Gate(Application(), ROUTES, admit), Few) as port, ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(4)]
        assert hung_up(held[3])
        held[0].sendall(b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab")
        assert b"200" in held[0].recv(4096)
