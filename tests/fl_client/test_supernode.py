"""Holds flwr 1.41.0 to what `fl_client.supernode` relies on; a device over real TLS, in this process."""

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp

from common.certificates import new_key, public_pem
from fl_client.node_settings import Ending
from fl_client.supernode import CHUNK_KNOB, Server, _read_refusal, ask_why, take_part
from fl_server import superlink as superlink_module
from tests.deployed import Deployed, server_app, superlink, write_identity

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]
Answer = Callable[[Message, Context], Message]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with superlink(tmp_path_factory.mktemp("superlink")) as running:
        yield running


def app_with(answer: Answer) -> ClientApp:
    app = ClientApp()
    app.train()(answer)
    return app


def member(deployed: Deployed, name: str) -> tuple[Server, int, bytes]:
    key = new_key()
    pem = public_pem(key.public_key())
    server = Server(f"127.0.0.1:{deployed.link.port}", deployed.ca_file, (key, key.public_key()), poll=0.05)
    return server, deployed.link.enrol(pem, name), pem


def answers(
    deployed: Deployed, app: ClientApp, messages: list[tuple[str, RecordDict]], **settings: Any
) -> tuple[list[Message], Ending]:
    """What a device replies to messages, given by type and content; then it is revoked."""
    server, node, pem = member(deployed, "device")
    grid = server_app(deployed, deployed.link.start_run())
    replies: list[Message] = []
    # Made beforehand: whose a new message is, Flower reads from one place of the process, and both sides share this one.
    questions = [Message(content, dst_node_id=node, message_type=kind) for kind, content in messages]

    def ask(_: int) -> None:
        def run() -> None:
            for question in questions:
                sent = list(grid.push_messages([question]))
                while not (found := list(grid.pull_messages(sent))):
                    threading.Event().wait(0.05)
                replies.extend(found)
            deployed.link.revoke(pem)

        threading.Thread(target=run).start()

    ending = take_part(server, app, on_ready=ask, **settings)
    grid.close()
    return replies, ending


def test_a_device_answers_with_the_app_that_is_installed_on_it(deployed: Deployed) -> None:
    def double(message: Message, context: Context) -> Message:
        arrays = [2 * array for array in message.content["a"].to_numpy_ndarrays()]
        return Message(RecordDict({"a": ArrayRecord(arrays)}), reply_to=message)

    given = np.arange(2_000_000, dtype=np.float32)
    (reply,), ending = answers(deployed, app_with(double), [("train", RecordDict({"a": ArrayRecord([given])}))])
    np.testing.assert_array_equal(reply.content["a"].to_numpy_ndarrays()[0], 2 * given)
    assert ending is Ending.REVOKED


def test_arrays_travel_in_pieces_of_the_size_that_was_asked_for(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.app.message import array as flower_array
    from flwr.supernode.fleet_http_client import FleetHttpClient

    sizes: list[int] = []
    send = FleetHttpClient._unary_unary

    def record(self: FleetHttpClient, *, path: str, **rest: object) -> object:
        if path == "/v1/fleet/push-object":
            sizes.append(rest["request"].ByteSize())  # type: ignore[attr-defined]
        return send(self, path=path, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FleetHttpClient, "_unary_unary", record)
    given = np.arange(500_000, dtype=np.float32)
    app = app_with(lambda message, context: Message(RecordDict({"a": ArrayRecord([given])}), reply_to=message))
    (reply,), _ = answers(deployed, app, [("train", RecordDict())], chunk_bytes=64 * 1024)
    np.testing.assert_array_equal(reply.content["a"].to_numpy_ndarrays()[0], given)
    assert len(sizes) > given.nbytes / (64 * 1024)
    assert max(sizes) < 65 * 1024
    assert getattr(flower_array, CHUNK_KNOB) == 5 * 2**20


SENT = {
    "/v1/fleet/activate-node": {"public_key", "heartbeat_interval"},
    "/v1/fleet/send-node-heartbeat": {"node", "heartbeat_interval"},
    "/v1/fleet/pull-messages": {"node"},
    "/v1/fleet/get-run": {"node", "run_id"},
    "/v1/fleet/pull-object": {"node", "run_id", "object_id"},
    "/v1/fleet/confirm-message-received": {"node", "run_id", "message_object_id"},
    "/v1/fleet/push-messages": {"node", "messages_list", "message_object_trees", "clientapp_runtime_list"},
    "/v1/fleet/push-object": {"node", "run_id", "object_id", "object_content", "session_id"},
    "/v1/fleet/deactivate-node": {"node_id"},
}
"""All that a device tells the server by itself; what an object holds is for `tests/fl_client/test_secure_sum.py`."""
ENVELOPE = {
    "run_id",
    "message_id",
    "src_node_id",
    "dst_node_id",
    "reply_to_message_id",
    "ttl",
    "message_type",
    "created_at",
    "dst_task_id",
}


def test_every_field_of_every_request_is_on_the_declared_list(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supernode.fleet_http_client import FleetHttpClient

    requests: list[tuple[str, Any]] = []
    send = FleetHttpClient._unary_unary

    def record(self: FleetHttpClient, *, path: str, **rest: object) -> object:
        requests.append((path, rest["request"]))
        return send(self, path=path, **rest)  # type: ignore[arg-type]

    def slow(message: Message, context: Context) -> Message:
        time.sleep(0.05)
        return Message(RecordDict({"a": ArrayRecord([np.zeros(3)])}), reply_to=message)

    monkeypatch.setattr(FleetHttpClient, "_unary_unary", record)
    answers(deployed, app_with(slow), [("train", RecordDict())])
    for path, request in requests:
        assert {field.name for field, _ in request.ListFields()} <= SENT[path], path
    (reply,) = (request for path, request in requests if path.endswith("push-messages"))
    assert list(reply.clientapp_runtime_list) == [0.0]
    assert {field.name for field, _ in reply.messages_list[0].ListFields()} <= {"metadata", "content"}
    assert reply.messages_list[0].content.ByteSize() == 0
    assert {field.name for field, _ in reply.messages_list[0].metadata.ListFields()} <= ENVELOPE


def test_of_an_error_the_server_learns_the_type_alone(deployed: Deployed) -> None:
    def fail(message: Message, context: Context) -> Message:
        raise ValueError("the face of Alice")

    (reply,), _ = answers(deployed, app_with(fail), [("train", RecordDict())])
    assert isinstance(reply.error, Error)
    assert reply.error.reason == "ValueError"


def test_after_each_message_the_device_is_told_when_nothing_of_it_is_held(deployed: Deployed) -> None:
    seen: list[weakref.ref[object]] = []
    held: list[bool] = []

    def fail_once(message: Message, context: Context) -> Message:
        reply = Message(RecordDict(), reply_to=message)
        seen.extend((weakref.ref(message), weakref.ref(reply)))
        if len(seen) > 2:
            raise ValueError
        return reply

    def look() -> None:
        held.append(any(one() is not None for one in seen[:2]))

    answers(deployed, app_with(fail_once), [("train", RecordDict()), ("train", RecordDict())], after_message=look)
    assert len(seen) == 4
    assert held == [False, False]


def test_other_types_of_message_never_reach_the_app(deployed: Deployed) -> None:
    reached = []

    def note(message: Message, context: Context) -> Message:
        reached.append(message.metadata.message_type)
        return Message(RecordDict(), reply_to=message)

    app = app_with(note)
    app.query()(note)
    app.evaluate()(note)
    replies, _ = answers(deployed, app, [("query", RecordDict()), ("evaluate", RecordDict()), ("train", RecordDict())])
    assert [reply.has_error() for reply in replies] == [True, True, False]
    assert reached == ["train"]


def test_an_app_keeps_its_state_from_one_message_of_a_run_to_the_next(deployed: Deployed) -> None:
    def count(message: Message, context: Context) -> Message:
        seen = int(str(context.state["seen"]["n"])) + 1 if "seen" in context.state else 1
        context.state["seen"] = ConfigRecord({"n": seen})
        return Message(RecordDict({"n": ConfigRecord({"n": seen})}), reply_to=message)

    first, second = ((("train", RecordDict({"which": ConfigRecord({"n": number})}))) for number in range(2))
    replies, _ = answers(deployed, app_with(count), [first, second])
    assert [reply.content["n"]["n"] for reply in replies] == [1, 2]


def test_the_servers_bundle_is_never_asked_for(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supernode.fleet_http_client import FleetHttpClient

    asked: list[str] = []
    send = FleetHttpClient._unary_unary

    def record(self: FleetHttpClient, *, path: str, **rest: object) -> object:
        asked.append(path)
        return send(self, path=path, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FleetHttpClient, "_unary_unary", record)
    answers(deployed, app_with(lambda message, context: Message(RecordDict(), reply_to=message)), [("train", RecordDict())])
    assert "/v1/fleet/push-messages" in asked
    assert "/v1/fleet/get-fab" not in asked


def test_sigterm_ends_a_device_in_order(deployed: Deployed) -> None:
    server, node, pem = member(deployed, "stopping")
    stop = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    ending = take_part(server, app_with(lambda message, context: message), on_ready=lambda node: stop.start())
    assert ending is Ending.STOPPED
    assert deployed.link.enrolled()[pem] == (node, False)


def test_a_device_that_was_never_enrolled_is_told_so(deployed: Deployed) -> None:
    key = new_key()
    server = Server(f"127.0.0.1:{deployed.link.port}", deployed.ca_file, (key, key.public_key()))
    assert take_part(server, app_with(lambda message, context: message)) is Ending.NOT_ENROLLED


def test_a_server_of_another_authority_is_not_spoken_to(deployed: Deployed, tmp_path: Path) -> None:
    write_identity(tmp_path)
    server, _, _ = member(deployed, "misled")
    assert ask_why(Server(server.address, tmp_path / "ca.pem", server.keys)) is Ending.UNTRUSTED


@pytest.mark.parametrize(("minutes", "words"), [(10, "10 minutes ahead"), (-20, "20 minutes behind")])
def test_a_wrong_clock_becomes_a_sentence_that_says_by_how_much(
    minutes: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC)
    date = now.strftime("%a, %d %b %Y %H:%M:%S GMT")
    response = httpx.Response(401, json={"reason": "clock"}, headers={"date": date})
    assert _read_refusal(response, now + timedelta(minutes=minutes)) is Ending.CLOCK
    assert words in caplog.text


def test_code_that_a_hostile_server_ships_never_touches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    hostile = f"open({str(trace)!r}, 'w').write('x')\n".encode()
    bundle = superlink_module.bundle_files()
    bundle["pyproject.toml"] = bundle["pyproject.toml"].replace(b"fl_client.app:app", b"hostile_code:app")
    monkeypatch.setattr(superlink_module, "bundle_files", lambda: bundle | {"hostile_code.py": hostile})
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("HOME", "FLWR_HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(home))
    echo = app_with(lambda message, context: Message(RecordDict(), reply_to=message))
    with superlink(tmp_path) as running:
        (reply,), _ = answers(running, echo, [("train", RecordDict())])
    assert not reply.has_error()
    assert not trace.exists()
    assert list(home.rglob("*")) == []
