"""How many bytes each device's replies hold in the server's memory, and which are too many. `fl_server.fleet_door` keeps count.

Flower stores whatever a device announces, up to thousands of objects of 6 MiB, for as long as nobody fetches it.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import chain

MOST_BYTES = 64 * 2**20
"""Of a reply, where nobody can say how much the run's model needs."""
KEPT = 4
"""Replies of one device that may wait in memory; a device that is late again and again leaves unread ones."""

ROOM = 4
"""Devices whose replies may be on their way or wait in memory at a time, small ones that are complete not counted: memory
follows the model, not the number of devices. Who comes meanwhile is asked to come again. One device takes up one place."""
SMALL = 256 * 1024
"""Bytes of a reply that takes up no room: the steps of a secure sum, but for the masked update."""
UNDERWAY = 180.0
"""Seconds after which an incomplete reply holds no place any more; its device may be gone."""

SETTLED = 1.0
"""Seconds after which Flower has looked at an announcement."""


class Busy(Exception):
    """There is no room for another reply now."""


class TooMuch(Exception):
    """A reply is larger than its run allows, and is dropped."""

    def __init__(self, most: int) -> None:
        super().__init__(f"its reply is larger than {most} bytes")


@dataclass(frozen=True, eq=False)
class _Reply:
    run: int
    name: str
    objects: frozenset[str]
    held: dict[str, int]
    since: float


class Replies:
    """Replies by device, from their announcement on; safe among threads. At most `KEPT` of a device are remembered.

    Args:
        size_of: bytes that are in memory of an object: 0 while it is waited for, None if it is not known, or not any more.
        drop: forgets the reply of that name of a device.
        now: seconds, of a clock that only goes forward.
    """

    def __init__(
        self, size_of: Callable[[str], int | None], drop: Callable[[int, str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._size_of, self._drop, self._now = size_of, drop, now
        self._guard = threading.Lock()
        self._by_node: dict[int, list[_Reply]] = {}
        self._leaving: set[_Reply] = set()
        self._limits: dict[int, Callable[[], int]] = {}

    def allow(self, run: int, most_bytes: Callable[[], int]) -> None:
        """A run begins: devices may answer it. Says how many bytes a reply may have; asked whenever an object comes."""
        with self._guard:
            self._limits[run] = most_bytes

    def most(self, run: int) -> int:
        """How many bytes a reply to the run may have."""
        limit = self._limits.get(run)
        return MOST_BYTES if limit is None else limit()

    def forget(self, run: int) -> None:
        """The run is over, and Flower has dropped what belonged to it."""
        with self._guard:
            self._limits.pop(run, None)
            for node, replies in list(self._by_node.items()):
                self._keep(node, [reply for reply in replies if reply.run != run])

    def announce(self, node: int, run: int, name: str, objects: Collection[str]) -> bool:
        """A device is about to send these objects, all that the reply `name` consists of; its oldest replies make room.

        Of replies to a run that never was or is over, Flower refuses the envelope, and nothing is remembered: the devices that
        a killed server had asked would else keep the others out for `UNDERWAY`.

        Returns:
            Whether it may: an object that is another reply itself would keep that one in memory for good.

        Raises:
            Busy: too many others are on their way, or wait to be fetched.
            TooMuch: what is already in memory of them, from replies before, is more than one reply may have.
        """
        parts = frozenset(objects)
        with self._guard:
            if run not in self._limits:
                return True
            replies = self._by_node.get(node, [])
            if any((reply.run, reply.name, reply.objects) == (run, name, parts) for reply in replies):
                return True
            others = chain(self._leaving, *self._by_node.values())
            if any(other.name in parts or name in other.objects for other in others):
                return False
            if self._crowded():
                raise Busy
            held = {part: size for part in parts if (size := self._size_of(part))}
            if sum(held.values()) > (most := self._limits[run]()):
                raise TooMuch(most)
            waiting = [reply for reply in replies if self._incomplete(reply) or self._size_of(reply.name) is not None]
            waiting.append(_Reply(run, name, parts, held, self._now()))
            late = waiting[:-KEPT]
            self._leaving.update(late)
            self._keep(node, waiting[-KEPT:])
        self._let_go(node, late)
        return True

    def arrived(self, node: int, part: str, size: int) -> bool:
        """Count an object that a device sends; False if the device has not announced it.

        Raises:
            TooMuch: the reply is too large with it, and is dropped.
        """
        with self._guard:
            replies = self._by_node.get(node, [])
            reply = next((reply for reply in reversed(replies) if part in reply.objects), None)
            if reply is None:
                return False
            reply.held[part] = max(size, reply.held.get(part, 0))
            most = self._limits[reply.run]()
            if sum(reply.held.values()) <= most:
                return True
            self._leaving.add(reply)
            self._keep(node, [other for other in replies if other is not reply])
        self._let_go(node, [reply])
        raise TooMuch(most)

    def _keep(self, node: int, replies: list[_Reply]) -> None:
        if replies:
            self._by_node[node] = replies
        else:
            self._by_node.pop(node, None)

    def _let_go(self, node: int, replies: list[_Reply]) -> None:
        """Drop replies that are counted no more; until it is done, no other one may contain them."""
        try:
            for reply in replies:
                self._drop(node, reply.name)
        finally:
            with self._guard:
                self._leaving.difference_update(replies)

    def _incomplete(self, reply: _Reply) -> bool:
        """Objects are still to come, or the first one came and Flower has not taken it: a device may send what it likes.

        An object that several devices send, as the header of a step is, may have come from another one between the announcement
        and Flower's own look: then Flower does not ask for it, and nothing of this reply is to come.
        """
        missing = [part for part in reply.objects if part not in reply.held]
        first = self._size_of(reply.name)
        if first is None:  # Flower has not looked yet; or the server has fetched the reply, or refused it
            return bool(missing) and reply.since > self._now() - SETTLED
        return first == 0 or any(self._size_of(part) == 0 for part in missing)

    def _crowded(self) -> bool:
        return sum(any(map(self._takes_room, replies)) for replies in self._by_node.values()) >= ROOM

    def _takes_room(self, reply: _Reply) -> bool:
        if self._incomplete(reply):
            return reply.since > self._now() - UNDERWAY
        return sum(reply.held.values()) > SMALL and self._size_of(reply.name) is not None
