import logging
from typing import Any

import httpx
import pytest
from flwr.app import Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree

from fl_client.supernode import _Node


def test_a_server_in_trouble_costs_its_message_and_shows_the_owner_one_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(self: _Node, message: Message, tree: ObjectTree) -> Message:
        raise httpx.HTTPStatusError("500", request=httpx.Request("POST", "https://h/"), response=httpx.Response(500))

    sent: list[Message] = []
    monkeypatch.setattr(_Node, "_answer", failing)
    monkeypatch.setattr(_Node, "_deliver", lambda self, reply: sent.append(reply))
    connection: tuple[Any, ...] = (7, *[None] * 7)
    with caplog.at_level(logging.INFO, "emofl.client"):
        _Node(connection, lambda message, context: message)._handle(
            Message(RecordDict(), dst_node_id=7, message_type="train"), ObjectTree()
        )
    assert sent[0].error.reason == "HTTPStatusError"
    (record,) = caplog.records
    assert record.exc_info is None
    assert "could not be fetched whole" in record.getMessage()
