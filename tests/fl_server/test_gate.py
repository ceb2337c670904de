"""The door in front of Flower: what it lets in, and for how long it waits."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from fl_server.gate import Gate, Refusal, Route
from fl_server.seats import Seats

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


def test_a_page_that_streams_waits_for_the_peer_and_not_in_a_busy_loop() -> None:
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x", "more_body": True} if asked < 4 else {"type": "http.disconnect"}

    async def pages(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b""
        assert (await receive())["type"] == "http.disconnect"

    async def send(message: Message) -> None:
        raise AssertionError

    gate = Gate(Application(), ROUTES, admit, pages=pages)
    asyncio.run(gate({"type": "http", "method": "GET", "path": "/live", "headers": []}, receive, send))
    assert asked == 4


def test_only_listed_paths_are_posted_to_pages_and_only_so_much() -> None:
    app, pages = Application(), Application()
    gate = Gate(app, ROUTES, admit, pages=pages, page_posts={"/login": Route(100, 0.3)})
    assert answer(gate, "POST", "/login", [b"a" * 60, b"b" * 40]) == 200
    assert answer(gate, "POST", "/login", [b"a" * 101]) == 413
    assert answer(gate, "POST", "/login", [], {"content-length": "101"}) == 413
    assert answer(gate, "POST", "/login", [b"a"] * 100, pause=0.02) == 408
    assert answer(gate, "POST", "/other", [b""]) == 404
    assert answer(Gate(app, ROUTES, admit, page_posts={"/login": Route(100, 0.3)}), "POST", "/login", [b""]) == 404
    assert pages.bodies == [b"a" * 60 + b"b" * 40]
    assert app.bodies == []


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


def test_a_sender_has_only_so_many_bodies_under_way_and_others_are_not_kept_waiting() -> None:
    async def play() -> list[int]:
        app = Application()
        route = Route(1000, 5.0, seats=Seats(3, 1))
        gate = Gate(app, {("POST", "/open"): route}, admit, sender=lambda headers: headers["who"])
        go = asyncio.Event()
        statuses: list[int] = []

        async def ask(who: bytes, wait: bool) -> None:
            async def receive() -> Message:
                if wait:
                    await go.wait()
                return {"type": "http.request", "body": b"x", "more_body": False}

            async def send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            await gate({"type": "http", "method": "POST", "path": "/open", "headers": [(b"who", who)]}, receive, send)

        slow = asyncio.create_task(ask(b"anna", wait=True))
        await asyncio.sleep(0.05)
        await ask(b"anna", wait=False)
        await ask(b"ben", wait=False)
        go.set()
        await slow
        await ask(b"anna", wait=False)
        return statuses

    assert asyncio.run(play()) == [503, 200, 200, 200]
