"""Connections to the server's HTTP: who is hung up on, who is turned away, and who is not."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from fl_server import connections
from fl_server.connections import ImpatientProtocol
from fl_server.http_server import HttpServer, listen
from fl_server.seats import Seats
from tests.deployed import trusting, write_identity

pytestmark = pytest.mark.network

LONG = 50 * 2**20


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when the body is there; at length, if it is asked for /long."""
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(LONG if scope["path"] == "/long" else 2)})


class Hurried(ImpatientProtocol):
    header_seconds = 0.3
    header_bytes = 2000
    read_seconds = 0.3


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


@pytest.mark.parametrize("said", [b"", b"POST /open HT", b"POST /open HTTP/1.1\r\nhost: x\r\nslow: "])
def test_a_peer_that_does_not_finish_its_headers_is_hung_up_on(said: bytes) -> None:
    with served(echo) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(said)
        assert hung_up(connection)


def test_endless_headers_are_hung_up_on() -> None:
    with served(echo) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /open HTTP/1.1\r\nhost: x\r\nlong: " + b"a" * 5000)
        assert hung_up(connection)


def test_a_second_request_on_a_connection_has_the_same_deadline() -> None:
    with served(echo) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab")
        assert b"200" in connection.recv(4096)
        connection.sendall(b"POST /open HTTP/1.1\r\nslow")
        assert hung_up(connection)


def received(connection: socket.socket) -> int:
    seen = 0
    with suppress(ConnectionError):
        while content := connection.recv(2**20):
            seen += len(content)
    return seen


def test_a_peer_that_does_not_read_the_answer_is_hung_up_on() -> None:
    with served(echo) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(1.0)
        connection.settimeout(5)
        assert received(connection) < LONG


def test_a_peer_that_reads_slowly_and_steadily_gets_it_all() -> None:
    with served(echo) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        connection.settimeout(5)
        seen, parts = 0, 0
        while content := connection.recv(2**22, socket.MSG_WAITALL):
            seen, parts = seen + len(content), parts + 1
            time.sleep(0.05)
        assert seen > LONG
        assert parts > 5


@contextmanager
def https(folder: Path, seats: Seats) -> Iterator[int]:
    identity = write_identity(folder)

    def tls(config: uvicorn.Config, default: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.certificate, identity.key)
        return context

    server = HttpServer(echo, listen("127.0.0.1", 0, seats), tls)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def answered(port: int, folder: Path) -> bool:
    connection = trusting(folder / "ca.pem").wrap_socket(socket.socket(), server_hostname="127.0.0.1")
    connection.settimeout(5)
    try:
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        return b"200" in connection.recv(4096)
    except OSError:
        return False
    finally:
        connection.close()


def eventually(what: Any, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_connections_that_never_finish_the_handshake_count_for_their_address(tmp_path: Path) -> None:
    with https(tmp_path, Seats(100, 3)) as port, ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(4)]
        assert hung_up(held[3])
        assert not answered(port, tmp_path)
        held[0].close()
        assert eventually(lambda: answered(port, tmp_path))


def test_one_address_does_not_take_the_places_of_another(tmp_path: Path) -> None:
    with https(tmp_path, Seats(100, 2)) as port, ExitStack() as stack:
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.2", 0))
            one.connect(("127.0.0.1", port))
        assert answered(port, tmp_path)


def test_all_addresses_together_hold_only_so_many(tmp_path: Path) -> None:
    with https(tmp_path, Seats(2, 2)) as port, ExitStack() as stack:
        for number in (2, 3):
            one = stack.enter_context(socket.socket())
            one.bind((f"127.0.0.{number}", 0))
            one.connect(("127.0.0.1", port))
        assert not answered(port, tmp_path)


def test_a_handshake_that_is_not_finished_is_cut_off_and_its_place_is_free_again(tmp_path: Path) -> None:
    with patch.object(connections, "HANDSHAKE_SECONDS", 0.3), https(tmp_path, Seats(1, 1)) as port:
        with socket.create_connection(("127.0.0.1", port)) as silent:
            assert hung_up(silent)
            assert eventually(lambda: answered(port, tmp_path))
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
            assert hung_up(half)
