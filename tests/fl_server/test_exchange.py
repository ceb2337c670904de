import time
from collections.abc import Iterable
from typing import cast

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

import fl_server.exchange as module
from common.errors import RunError
from fl_server.exchange import SPARE, Exchange, reason_of
from tests.fl_server.grids import Answer, ScriptedGrid
from tests.forged import SHAPES, forge


def messages(count: int) -> list[Message]:
    return [Message(RecordDict(), dst_node_id=node, message_type="train") for node in range(count)]


def echo(message: Message) -> Message:
    return Message(RecordDict(), reply_to=message)


def explode(message: Message) -> Message:
    raise RuntimeError


def silent(message: Message) -> None:
    return None


def grid(**special: Answer) -> ScriptedGrid:
    """Eight devices that answer, but for the `d3=...` that are given."""
    return ScriptedGrid({node: special.get(f"d{node}", echo) for node in range(8)})


def test_an_error_that_flower_reports_carries_the_id_of_the_device_that_was_asked() -> None:
    replies = list(Exchange(grid(d3=explode), 0.001).ask(messages(8), 5))
    assert sorted(reply.metadata.src_node_id for reply in replies) == list(range(8))
    assert [reply.metadata.src_node_id for reply in replies if reply.has_error()] == [3]


def test_silent_devices_are_waited_for_until_the_time_is_up() -> None:
    began = time.monotonic()
    replies = list(Exchange(grid(d3=silent), 0.001).ask(messages(8), 0.3))
    assert len(replies) == 7
    assert time.monotonic() - began >= 0.3


def heard(exchange: Exchange, timeout: float, patience: float, most: int) -> int:
    """How many of eight answer, if `most` of them say how long is usual."""
    answered: list[Message] = []
    for reply in exchange.ask(messages(8), timeout, patience, lambda: len(answered) >= most):
        answered.append(reply)
    return len(answered)


def test_once_most_have_answered_the_others_get_a_multiple_of_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 0.05)
    began = time.monotonic()
    assert heard(Exchange(grid(d3=silent, d4=silent), 0.001), timeout=60, patience=2.0, most=6) == 6
    assert time.monotonic() - began < 30


def test_nobody_is_hurried_while_few_have_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 0.01)
    began = time.monotonic()
    assert heard(Exchange(grid(d3=silent, d4=silent, d5=silent), 0.001), timeout=0.4, patience=1.0, most=6) == 5
    assert time.monotonic() - began >= 0.4


def test_a_late_reply_is_fetched_and_dropped_with_the_next_question() -> None:
    class Late(ScriptedGrid):
        late = True

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            identifiers = list(message_ids)
            if self.late and any(reply.metadata.src_node_id == 3 for name in identifiers for reply in self._replies[name]):
                return []
            return super().pull_messages(identifiers)

    found = Late(dict.fromkeys(range(4), echo))
    exchange = Exchange(found, 0.001)
    assert len(list(exchange.ask(messages(4), 0.1))) == 3
    assert sum(map(len, found._replies.values())) == 1
    found.late = False
    assert len(list(exchange.ask(messages(4), 5))) == 4
    assert sum(map(len, found._replies.values())) == 0


def test_who_has_heard_enough_leaves_the_rest_to_be_dropped() -> None:
    found = grid()
    exchange = Exchange(found, 0.001)
    for _ in exchange.ask(messages(8), 5):
        break
    list(exchange.ask(messages(1), 5))
    assert sum(map(len, found._replies.values())) == 0


def test_a_message_lives_little_longer_than_its_reply_is_waited_for() -> None:
    asked = messages(2)
    list(Exchange(grid(), 0.001).ask(asked, 7))
    assert {message.metadata.ttl for message in asked} == {7 + SPARE}


class Inflating(ScriptedGrid):
    """As Flower's grid, it builds a reply of what its device sent; device 3 made its own up."""

    def __init__(self, shape: str, late: bool = False) -> None:
        super().__init__(dict.fromkeys(range(8), echo))
        self.shape, self.late = shape, late

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        identifiers = list(message_ids)
        if self.late and any(reply.metadata.src_node_id == 3 for name in identifiers for reply in self._replies[name]):
            return []
        return [self.inflated(reply) for reply in super().pull_messages(identifiers)]

    def inflated(self, reply: Message) -> Message:
        if reply.metadata.src_node_id != 3:
            return reply
        reply.metadata.__dict__["_run_id"] = 1
        made = forge(self.shape, reply, other=5)
        found = inflate_object_from_contents(made.tree.object_id, dict(made.parts))
        assert isinstance(found, Message) or found.metadata  # type: ignore[attr-defined]  # as Flower's grid goes on
        return cast(Message, found)


def numbered(count: int) -> list[Message]:
    """Messages of run 1."""
    asked = messages(count)
    for message in asked:
        message.metadata.__dict__["_run_id"] = 1
    return asked


@pytest.mark.parametrize("shape", SHAPES)
def test_a_malformed_reply_is_an_error_of_the_device_that_was_asked_and_costs_nobody_else_anything(shape: str) -> None:
    replies = {reply.metadata.src_node_id: reply for reply in Exchange(Inflating(shape), 0.001).ask(numbered(8), 5)}
    assert sorted(replies) == list(range(8))
    assert {node: reason_of(reply) for node, reply in replies.items() if reply.has_error()} == {3: "malformed"}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_malformed_reply_that_comes_late_is_dropped_as_any_other(shape: str) -> None:
    found = Inflating(shape, late=True)
    exchange = Exchange(found, 0.001)
    assert len(list(exchange.ask(numbered(8), 0.1))) == 7
    found.late = False
    assert len(list(exchange.ask(numbered(3), 5))) == 3
    assert not exchange._late


@pytest.mark.parametrize("error", [httpx.ReadError("gone"), ConnectionError(), RunError("over")])
def test_trouble_on_the_way_to_the_replies_is_nobodys_malformed_reply(error: Exception) -> None:
    class Cut(ScriptedGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            raise error

    with pytest.raises(type(error)):
        list(Exchange(Cut(dict.fromkeys(range(8), echo)), 0.001).ask(messages(8), 5))


def test_an_error_that_flower_reports_is_not_a_malformed_reply() -> None:
    replies = list(Exchange(grid(d3=explode), 0.001).ask(messages(8), 5))
    assert [reason_of(reply) for reply in replies if reply.has_error()] == ["error"]


def test_a_stopped_run_stops_asking() -> None:
    with pytest.raises(RunError, match="resume it"):
        list(Exchange(grid(), 0.001, lambda: True).ask(messages(8), 5))


def test_a_grid_that_says_when_a_reply_is_there_is_not_looked_at_in_between() -> None:
    class Waiting(ScriptedGrid):
        waits = 0

        def wait(self, seconds: float) -> None:
            self.waits += 1
            (late,) = (message for message in asked if message.metadata.dst_node_id == 3)
            self._replies[late.metadata.message_id] = [echo(late)]

    asked = messages(8)
    waiting = Waiting(dict.fromkeys(range(8), echo) | {3: silent})
    assert len(list(Exchange(waiting, poll=3600).ask(asked, 5))) == 8
    assert waiting.waits == 1
