"""Messages to devices and their replies, one pulled at a time, so that each can be dropped before the next.

`fl_server.rounds` and `fl_server.secure_round` ask with it.
A device writes its replies object by object, and Flower believes them: what cannot be read, or names another sender, is refused.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import httpx
from flwr.app import Message, Metadata
from flwr.app.error import Error
from flwr.app.message import make_message
from flwr.serverapp import Grid

from common.errors import ReplyError, RunError, Stopped

log = logging.getLogger("emofl.server")

MOST, LEAST = 0.75, 30.0
"""Part of the devices whose time says how long is usual; seconds that the others get at least, from the start."""
SPARE = 60.0
"""Seconds for which a device may still fetch a message after nobody waits for its reply; it is not asked for stale work."""
LATEST, LOOK = 900.0, 5.0
"""Seconds for which a late reply is looked for, and between such looks: it would take up room that others wait for."""
MALFORMED = 1000
"""Error code of what stands in a malformed reply's place; Flower's own are below."""


def reason_of(reply: Message) -> str:
    """The word under which a reply that is left out is counted."""
    return "error" if reply.has_error() and reply.error.code != MALFORMED else "malformed"


@dataclass(frozen=True)
class _Asked:
    """Of a message that was sent; its content is not kept.

    Attributes:
        identifier: Flower's.
        node: that was asked.
    """

    identifier: str
    run: int
    node: int


@dataclass
class Exchange:
    """The grid of one run. A grid with a `wait(seconds)` is trusted to return as soon as there is a reply.

    Attributes:
        poll: seconds between looks for replies.
        stopped: asked now and then.
    """

    grid: Grid
    poll: float = 0.02
    stopped: Callable[[], bool] = lambda: False
    _late: dict[_Asked, float] = field(default_factory=dict)

    def ask(
        self,
        messages: Iterable[Message],
        timeout: float,
        patience: float = math.inf,
        most_have: Callable[[], bool] = lambda: False,
    ) -> Iterator[Message]:
        """Send `messages` and yield each reply when it is there.

        Every reply carries the node id of the device that was asked. A device whose connection ended is answered for by Flower,
        with an error; in place of a malformed reply there is one with the code `MALFORMED`. Replies that come after `timeout`
        seconds, or after the caller has heard enough, are fetched during later calls and dropped: Flower would keep them.

        Args:
            patience: once `most_have`, asked after each reply, the others get this many times as long as those took.

        Raises:
            Stopped: `stopped` said so.
        """
        self._drop_late()
        self._look()
        asked = list(messages)
        for message in asked:
            message.metadata.ttl = timeout + SPARE
        about = [(message.metadata.run_id, message.metadata.dst_node_id) for message in asked]
        sent = self.grid.push_messages(asked)
        pending = {_Asked(identifier, *to): None for identifier, to in zip(sent, about, strict=False) if identifier}
        del asked, messages
        pause: Callable[[float], object] = getattr(self.grid, "wait", time.sleep)
        began = looked = time.monotonic()
        end, usual = began + timeout, False
        try:
            while pending and time.monotonic() < end:
                for one in list(pending):
                    self._look()
                    reply = self._pull(one)
                    if reply is None:
                        continue
                    del pending[one]
                    yield reply
                    if not usual and most_have():
                        usual = True
                        end = min(end, began + max(LEAST, patience * (time.monotonic() - began)))
                if pending:
                    pause(self.poll)
                if time.monotonic() > looked + LOOK:
                    looked = time.monotonic()
                    self._drop_late()
        finally:
            self._late |= dict.fromkeys(pending, time.monotonic() + LATEST)

    def _look(self) -> None:
        if self.stopped():
            raise Stopped("The run was stopped in the middle of a round; resume it to repeat that round.")

    def _drop_late(self) -> None:
        for one, end in list(self._late.items()):
            if self._pull(one) is not None or time.monotonic() > end:
                del self._late[one]

    def _pull(self, asked: _Asked) -> Message | None:
        """The reply, if it is there. Flower builds it of objects that its device made up, and raises whatever comes of nonsense.

        Pulled together with such a reply, others would be lost: Flower has marked them as delivered.
        """
        try:
            reply = next(iter(self.grid.pull_messages([asked.identifier])), None)
            if reply is None:
                return None
            if not reply.has_error():
                _check(reply.metadata, asked)
        except (httpx.HTTPError, OSError, RunError):  # of the way to the replies, not of this one
            raise
        except Exception as error:
            why = error if isinstance(error, ReplyError) else f"it cannot be read ({type(error).__name__})"
            log.warning("the reply of device %d is malformed: %s", asked.node, why)
            return _malformed(asked)
        reply.metadata.__dict__["_src_node_id"] = asked.node
        return reply


def _check(said: Metadata, asked: _Asked) -> None:
    """A reply's metadata is part of what its device wrote; Flower and the gate have looked at its envelope alone.

    Raises:
        ReplyError: it is not the reply of the device that was asked to what it was asked.
    """
    if (said.src_node_id, said.run_id, said.reply_to_message_id) != (asked.node, asked.run, asked.identifier):
        raise ReplyError("it is in another device's name, or answers another message")


def _malformed(asked: _Asked) -> Message:
    metadata = Metadata(asked.run, "", asked.node, asked.node, asked.identifier, "", time.time(), SPARE, "train")
    return make_message(metadata=metadata, error=Error(MALFORMED, "malformed"))
