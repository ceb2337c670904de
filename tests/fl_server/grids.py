"""A grid whose devices are functions, for tests of rounds without Flower's engine."""

from collections.abc import Callable, Iterable
from uuid import uuid4

from flwr.app import Message
from flwr.app.error import Error
from flwr.serverapp import Grid

Answer = Callable[[Message], Message | None]


class ScriptedGrid(Grid):
    """Each node answers a message by a function; None means that it never answers, an exception an error reply."""

    def __init__(self, nodes: dict[int, Answer]) -> None:
        self.nodes = nodes
        self.asked: list[list[int]] = []
        self._replies: dict[str, list[Message]] = {}

    def set_run(self, run: object) -> None: ...

    @property
    def run(self) -> object:
        return None

    def create_message(self, *args: object, **settings: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        self.asked.append([m.metadata.dst_node_id for m in batch])
        for message in batch:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            try:
                reply = self.nodes[message.metadata.dst_node_id](message)
            except Exception:
                reply = Message(Error(code=1, reason="gone"), reply_to=message)
            self._replies[message.metadata.message_id] = [] if reply is None else [reply]
        return [m.metadata.message_id for m in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [reply for identifier in list(message_ids) for reply in self._replies.pop(identifier, [])]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise AssertionError("replies must be streamed")
