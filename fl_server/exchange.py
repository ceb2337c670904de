"""Messages to devices and their replies, one pulled at a time, so that each can be dropped before the next.

`fl_server.rounds` and `fl_server.secure_round` ask with it.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from common.errors import Stopped

MOST, LEAST = 0.75, 30.0
"""Part of the devices whose time says how long is usual; seconds that the others get at least, from the start."""
SPARE = 60.0
"""Seconds for which a device may still fetch a message after nobody waits for its reply; it is not asked for stale work."""
LATEST, LOOK = 900.0, 5.0
"""Seconds for which a late reply is looked for, and between such looks: it would take up room that others wait for."""


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
    _late: dict[str, float] = field(default_factory=dict)

    def ask(
        self,
        messages: Iterable[Message],
        timeout: float,
        patience: float = math.inf,
        most_have: Callable[[], bool] = lambda: False,
    ) -> Iterator[Message]:
        """Send `messages` and yield each reply when it is there.

        A device whose connection ended is answered for by Flower, with an error in Flower's own name: here it gets the id of the
        device that was asked. Replies that come after `timeout` seconds, or after the caller has heard enough, are fetched
        during later calls and dropped: Flower would keep them.

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
        nodes = [message.metadata.dst_node_id for message in asked]
        sent = self.grid.push_messages(asked)
        pending = {identifier: node for identifier, node in zip(sent, nodes, strict=False) if identifier}
        del asked, messages
        pause: Callable[[float], object] = getattr(self.grid, "wait", time.sleep)
        began = looked = time.monotonic()
        end, usual = began + timeout, False
        try:
            while pending and time.monotonic() < end:
                for identifier, node in list(pending.items()):
                    self._look()
                    for message in self.grid.pull_messages([identifier]):
                        del pending[identifier]
                        if message.has_error():
                            message.metadata.__dict__["_src_node_id"] = node
                        yield message
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
        for identifier, end in list(self._late.items()):
            if any(True for _ in self.grid.pull_messages([identifier])) or time.monotonic() > end:
                del self._late[identifier]
