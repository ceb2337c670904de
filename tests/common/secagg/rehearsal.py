"""A whole round in one process, step by step, so that a test can drop devices out or bend messages anywhere."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from common.identity import SigningKey
from common.secagg.client import Client, Limits
from common.secagg.graph import Plan
from common.secagg.roster import Roster
from common.secagg.server import Server, Sum
from common.secagg.wire import Delivery, Directory, MaskedInput, Quorum, Survivors, Terms

NOBODY: frozenset[int] = frozenset()


class Stream:
    """Repeatable random bytes."""

    def __init__(self, number: int) -> None:
        key = number.to_bytes(32, "big")
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(4) + b"\xff" * 12), mode=None).encryptor()
        self.asked: list[int] = []

    def __call__(self, count: int) -> bytes:
        self.asked.append(count)
        return self._stream.update(bytes(count))


def identities(members: int) -> list[SigningKey]:
    """Enrolled keys, in the order of their member numbers."""
    keys = [SigningKey.from_seed(number.to_bytes(32, "big")) for number in range(1, members + 1)]
    return sorted(keys, key=lambda key: key.public.raw)


def make_terms(keys: list[SigningKey], length: int = 16, run: str = "run", number: int = 1, width: int = 32) -> Terms:
    return Terms(run, number, length, bytes(32), tuple(key.public.raw for key in keys), width)


@dataclass
class Rehearsal:
    """Server and devices of one round.

    Attributes:
        clients: by member number.
        vectors: what each device has, uniform in the ring.
    """

    members: int
    length: int = 16
    run: str = "run"
    number: int = 1
    seed: int = 0
    smallest: int = 3
    width: int = 32
    keys: list[SigningKey] = field(init=False)
    inputs: dict[int, MaskedInput] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = identities(self.members)
        self.terms = make_terms(self.keys, self.length, self.run, self.number, self.width)
        self.roster = Roster(frozenset(self.terms.cohort))
        self.clients = {
            member: Client(self.terms, key, self.roster, Limits(self.smallest), Stream(1000 * self.seed + member))
            for member, key in enumerate(self.keys)
        }
        self.server = Server(self.terms)
        rng = np.random.default_rng(self.seed)
        self.vectors = {m: rng.integers(0, 2**self.width, self.length, dtype=np.uint32) for m in self.clients}

    def advertised(self, dropped: Collection[int] = NOBODY) -> Directory:
        self.advertisements = {m: client.advertise() for m, client in self.clients.items() if m not in dropped}
        for message in self.advertisements.values():
            self.server.add_advertisement(message)
        self.directory = self.server.close_advertising()
        return self.directory

    def shared(self, dropped: Collection[int] = NOBODY) -> dict[int, Delivery]:
        self.shares = {m: self.clients[m].share(self.directory) for m in self.advertisements if m not in dropped}
        for message in self.shares.values():
            self.server.add_shares(message)
        self.deliveries = self.server.close_sharing()
        return self.deliveries

    def masked(self, dropped: Collection[int] = NOBODY) -> dict[int, Survivors]:
        for member, delivery in self.deliveries.items():
            if member not in dropped:
                self.inputs[member] = self.clients[member].mask(delivery, self.vectors[member])
                self.server.add_masked(self.inputs[member])
        self.lists = self.server.close_masking()
        return self.lists

    def confirmed(self, dropped: Collection[int] = NOBODY) -> Quorum:
        self.confirmers = [member for member in self.lists if member not in dropped]
        for member in self.confirmers:
            self.server.add_confirmation(self.clients[member].confirm(self.lists[member]))
        self.quorum = self.server.close_confirming()
        return self.quorum

    def unmasked(self, dropped: Collection[int] = NOBODY) -> Sum:
        for member in self.confirmers:
            if member not in dropped:
                self.server.add_unmasking(self.clients[member].unmask(self.quorum))
        return self.server.finish()

    def until_masked(self, dropped: Collection[int] = NOBODY) -> dict[int, Survivors]:
        """Through the first three phases; `dropped` do not send their masked vectors."""
        self.advertised()
        self.shared()
        return self.masked(dropped)

    def sum_of(self, members: Collection[int]) -> NDArray[np.uint32]:
        """The exact sum in the ring."""
        total = np.zeros(self.length, dtype=np.uint64)
        for member in members:
            total += self.vectors[member]
        return (total % 2**32).astype(np.uint32)


def small_ring(members: int) -> Plan:
    """A sparse graph that a test can afford: four neighbours, any two next to each other keep one alive."""
    return Plan(members, degree=6, threshold=4, window=1, quorum=2 * members // 3 + 1)
