"""A Flower grid whose devices live on this machine: what is pushed goes straight to the workers. `simulation.backend` uses it.

Flower's own engine keeps every message in a state that it polls; here a message costs a look into a dictionary.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol
from uuid import uuid4

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from common.errors import RunError

FIRST_NODE = 2
"""Node id of device 0. Flower keeps 1 for the server."""

NodeOrder = Callable[[Iterable[int]], Sequence[int]]
"""Sorts node ids by device number."""

PAUSE = 0.2
"""Seconds after which somebody who waits for replies looks around, for whether the run was stopped."""

Done = Callable[[Message], None]
"""Takes the reply to a message, which names the message it answers."""


class Crew(Protocol):
    """The workers that answer messages.

    Attributes:
        threads: of torch, for each worker; the server takes as many.
    """

    threads: int

    def start(self, done: Done) -> None:
        """Begin to take messages; `done` gets each reply, from whatever thread.

        Raises:
            RunError: the workers cannot be started.
        """

    def hand(self, message: Message, number: int) -> None:
        """Let device `number` answer `message` some time soon."""

    def stop(self) -> None:
        """End the workers; what they have not begun is dropped."""


class Desk:
    """Messages that wait for a worker. One that goes on with what a device has begun waits for the worker that began it."""

    def __init__(self, workers: int, goes_on: Callable[[Message], bool]) -> None:
        self._goes_on = goes_on
        self._anybodys: deque[tuple[Message, int]] = deque()
        self._own: list[deque[tuple[Message, int]]] = [deque() for _ in range(workers)]
        self._began: dict[int, int] = {}
        self._changed, self._closed = threading.Condition(), False

    def put(self, message: Message, number: int) -> None:
        """Add a message for device `number`."""
        with self._changed:
            worker = self._began.get(number) if self._goes_on(message) else None
            (self._anybodys if worker is None else self._own[worker]).append((message, number))
            self._changed.notify_all()

    def take(self, worker: int) -> tuple[Message, int] | None:
        """The next message for `worker`, once there is one; None when the desk is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._own[worker] or self._anybodys)
            if self._closed:
                return None
            message, number = (self._own[worker] or self._anybodys).popleft()
            self._began[number] = worker
            return message, number

    def close(self) -> None:
        """Send everybody home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class LocalGrid(Grid):
    """The grid of one run with `clients` devices, numbered from 0, that a crew answers for."""

    def __init__(self, clients: int, crew: Crew, run: Run) -> None:
        self._nodes = range(FIRST_NODE, FIRST_NODE + clients)
        self._crew, self._run = crew, run
        self._replies: dict[str, Message] = {}
        self._arrived, self._news = threading.Condition(), False

    def keep(self, reply: Message) -> None:
        """A reply is there. The crew calls it."""
        with self._arrived:
            self._replies[reply.metadata.reply_to_message_id] = reply
            self._news = True
            self._arrived.notify_all()

    def wait(self, seconds: float) -> None:
        """Return when a reply has come since the last call, or after `PAUSE`. `fl_server.exchange` calls it, not to sleep."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._news, max(seconds, PAUSE))
            self._news = False

    def set_run(self, run: Run) -> None:
        """A grid of this kind is made for one run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that it is for."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """As Flower's grids, which ask for it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Sequence[int]:
        """In the order of the devices' numbers."""
        return self._nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand each message to the crew and return the messages' ids.

        Raises:
            RunError: a message is for nobody here.
        """
        sent = []
        for message in messages:
            if message.metadata.dst_node_id not in self._nodes:
                raise RunError(f"There is no device with node id {message.metadata.dst_node_id}.")
            sent.append(str(uuid4()))
            message.metadata.__dict__["_message_id"] = sent[-1]
            self._crew.hand(message, message.metadata.dst_node_id - FIRST_NODE)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there, once each."""
        with self._arrived:
            found = (self._replies.pop(identifier, None) for identifier in message_ids)
            return [reply for reply in found if reply is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """All replies, or those that are there after `timeout` seconds."""
        sent = set(self.push_messages(messages))
        with self._arrived:
            self._arrived.wait_for(lambda: sent <= self._replies.keys(), timeout)
        return self.pull_messages(sent)
