"""Replies that a device made up, sent to a real SuperLink: the server asks on, and the honest ones count."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.superlink.grid import HttpGrid

from fl_server import exchange as module
from fl_server.exchange import MALFORMED, Exchange, reason_of
from fl_server.link_state import inflated_bytes
from fl_server.superlink import Started
from tests.deployed import Deployed, server_app, superlink
from tests.fl_server.test_superlink import Sender, activate, asked, enrolled, pull, reply_to
from tests.forged import BOMB, DEEP, NESTED, SHAPES, SPOOFED, bomb, forge, name

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

Device = tuple[EllipticCurvePrivateKey, int]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with superlink(tmp_path_factory.mktemp("superlink")) as running:
        yield running


@pytest.fixture
def run(deployed: Deployed) -> Iterator[tuple[Started, HttpGrid]]:
    run = deployed.link.start_run()
    grid = server_app(deployed, run)
    yield run, grid
    grid.close()
    deployed.link.end_run(run.run_id)


@pytest.fixture
def pair(deployed: Deployed) -> tuple[Device, Device]:
    """One that lies and one that is honest, both awake."""
    found = enrolled(deployed.link, "liar"), enrolled(deployed.link, "honest")
    for key, _ in found:
        activate(deployed, key)
    return found


def answer(deployed: Deployed, run: Started, device: Device, shape: str = "", other: int = 0) -> None:
    """Wait for a message, and answer it with a reply of this shape, or honestly."""
    key, node = device
    while not (messages := pull(deployed, key, node).messages_list):
        time.sleep(0.05)
    sender = Sender(deployed, key, reply_to(messages[0].metadata.message_id, run.run_id, node, np.ones(3, np.float32)))
    if shape:
        made = forge(shape.partition(" called")[0], sender.reply, other)
        sender.tree, sender.parts = made.tree, dict(made.parts)
    assert sender.announce(error="called an error" in shape, message_id=sender.tree.object_id, ttl=20.0) == 200
    assert {sender.send(name)[0] for name in sender.parts} == {200}


def question(*devices: Device) -> list[Message]:
    return [Message(RecordDict(), dst_node_id=node, message_type="train") for _, node in devices]


def replies_to(grid: HttpGrid, devices: Iterable[Device], *answers: Callable[[], None]) -> dict[int, Message]:
    """By node, in the order in which they came: what the server hears of devices that answer meanwhile."""
    with ThreadPoolExecutor() as threads:
        done = [threads.submit(one) for one in answers]
        replies = {reply.metadata.src_node_id: reply for reply in Exchange(grid, 0.05).ask(question(*devices), 20)}
    assert [one.result() for one in done] == [None] * len(done)
    return replies


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != DEEP])
def test_a_reply_that_cannot_be_read_or_is_in_anothers_name_is_its_senders_loss_alone(
    deployed: Deployed, run: tuple[Started, HttpGrid], pair: tuple[Device, Device], shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    (started, grid), (liar, honest) = run, pair
    with caplog.at_level(logging.WARNING, "emofl.server"):
        replies = replies_to(
            grid, pair, lambda: answer(deployed, started, liar, shape, honest[1]), lambda: answer(deployed, started, honest)
        )
    assert set(replies) == {liar[1], honest[1]}
    assert (replies[liar[1]].error.code, reason_of(replies[liar[1]])) == (MALFORMED, "malformed")
    assert replies[honest[1]].content["update"]["0"].numpy().tolist() == [1.0, 1.0, 1.0]
    (said,) = (record.getMessage() for record in caplog.records if record.name == "emofl.server")
    assert f"device {liar[1]} " in said
    assert ("another" in said) == (shape in SPOOFED)


@pytest.mark.parametrize("shape", [BOMB, NESTED, f"{BOMB} called an error"])
def test_a_reply_that_would_burst_the_servers_memory_is_dropped_before_it_is_read(
    deployed: Deployed, run: tuple[Started, HttpGrid], pair: tuple[Device, Device], shape: str
) -> None:
    (started, grid), (liar, honest) = run, pair
    replies = replies_to(grid, pair, lambda: answer(deployed, started, liar, shape), lambda: answer(deployed, started, honest))
    assert replies[liar[1]].has_error()
    assert replies[liar[1]].error.code != MALFORMED, "it was read"
    assert replies[honest[1]].content["update"]["0"].numpy().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("depth", [1, 60])
def test_a_reply_tied_to_parts_that_never_come_is_lost_and_the_honest_ones_are_read(
    deployed: Deployed, run: tuple[Started, HttpGrid], pair: tuple[Device, Device], depth: int
) -> None:
    """An object keeps the children of its first announcement; Flower would wait for them, or go down too deep."""
    (started, grid), (liar, honest) = run, pair
    parts = [f"ArrayChunk  {len(str(at))}\0{at}".encode() for at in range(depth)]
    first = asked(deployed, grid, *liar)
    tower = ObjectTree(object_id=name(b"never sent"))
    for part in parts:
        tower = ObjectTree(object_id=name(part), children=[tower])
    earlier = Sender(deployed, liar[0], reply_to(first, started.run_id, liar[1], np.ones(3, np.float32)))
    assert earlier.announce(ObjectTree(object_id=earlier.tree.object_id, children=[tower])) == 200

    def tied() -> None:
        while not (messages := pull(deployed, *liar).messages_list):
            time.sleep(0.05)
        reply = reply_to(messages[0].metadata.message_id, started.run_id, liar[1], np.full(3, 7, np.float32))
        sender = Sender(deployed, liar[0], reply)
        sender.parts |= {name(parts[-1]): parts[-1]}
        tree = ObjectTree(
            object_id=sender.tree.object_id, children=[*sender.tree.children, ObjectTree(object_id=name(parts[-1]))]
        )
        assert sender.announce(tree, ttl=20.0) == 200
        assert {sender.send(part)[0] for part in sender.parts} == {200}

    replies = replies_to(grid, pair, tied, lambda: answer(deployed, started, honest))
    assert list(replies) == [honest[1], liar[1]]
    assert replies[honest[1]].content["update"]["0"].numpy().tolist() == [1.0, 1.0, 1.0]
    assert replies[liar[1]].has_error()


def test_what_arrays_come_to_counts_each_chunk_as_often_as_it_is_named() -> None:
    parts = {name(part): part for part in bomb(1_000, 50)}
    most = inflated_bytes(parts)
    assert 50 * 1_000 <= most <= 50 * 1_020
    parts |= {name(junk): junk for junk in (b"Array", b"Array  2\0{}", b"Array  1\0[", b"ArrayChunk  1\0x")}
    assert inflated_bytes(parts) == most
    assert inflated_bytes({name: part for name, part in parts.items() if not part.startswith(b"ArrayChunk")}) == 0
    assert inflated_bytes({name(part): part for part in bomb(1_000, 500, nested=True)}) == math.inf


@pytest.mark.parametrize("shape", ["no-json", "other-sender"])
def test_such_a_reply_that_comes_late_is_dropped_like_any(
    deployed: Deployed, run: tuple[Started, HttpGrid], pair: tuple[Device, Device], shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (started, grid), (liar, honest) = run, pair
    monkeypatch.setattr(module, "LOOK", 0.0)
    exchange = Exchange(grid, 0.05)
    assert list(exchange.ask(question(liar), 0.1)) == []
    answer(deployed, started, liar, shape, honest[1])
    with ThreadPoolExecutor() as threads:
        done = threads.submit(answer, deployed, started, honest)
        (reply,) = exchange.ask(question(honest), 20)
    assert done.result() is None
    assert not reply.has_error()
    assert not exchange._late
