"""Who masks with whom and who holds whose shares: everybody with everybody, or a random k-regular ring in large cohorts.

`client` and `server` both derive it, from the cohort's size and the directory's digest; no message carries it.
"""

import functools
import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from common.errors import PrivacyError

COMPLETE_UP_TO = 256
"""Members up to which everybody is everybody's neighbour."""

SMALLEST = 3
"""Members below which a sum says too much: of two, each knows the other's vector."""

CORRUPT_PERCENT, DROPPED_PERCENT = 10, 30
"""Of a large cohort: how many may collude with the server, and how many may drop out by chance. A complete graph stands
a third of each."""

SECURITY_BITS, CORRECTNESS_BITS = 80, 20
"""A random graph is unsafe with a probability below 2^-80, and fails by chance below 2^-20. The first is more than the usual 40
because a malicious server may try out cohorts until their digest gives it a good graph: after 2^40 tries, 2^-40 is left."""


@dataclass(frozen=True)
class Plan:
    """The numbers of a cohort. All devices compute the same from its size, in exact integers; the server cannot change them.

    Attributes:
        members: n, the devices invited.
        degree: k, neighbours of each.
        threshold: t, shares that give a secret back.
        window: survivors that every k / 2 consecutive places of the ring must hold; 0 in a complete graph.
        quorum: survivors needed, and signatures of the list of survivors; two lists cannot both get it while fewer than a third
            of the members lie: it is more than (n + corrupt) / 2 (Bonawitz et al. 2017, section 6).
    """

    members: int
    degree: int
    threshold: int
    window: int
    quorum: int


def quorum(members: int) -> int:
    """`Plan.quorum` by itself: the rest takes long in large cohorts.

    Raises:
        PrivacyError: fewer than three members.
    """
    if members < SMALLEST:
        raise PrivacyError(f"Secure aggregation needs at least {SMALLEST} devices, not {members}.")
    return 2 * members // 3 + 1


@functools.cache
def plan(members: int) -> Plan:
    """The plan of a cohort.

    A complete graph has t = floor(2n / 3) + 1 (Bonawitz et al. 2017, section 6). Above `COMPLETE_UP_TO`, k is the smallest even
    number with which the bad events of Bell et al. 2020, section 3, are rare enough, computed from the hypergeometric
    distribution with a union bound over the members: t corrupt neighbours of one member, and fewer than t left after dropouts
    by chance. Their third event, honest survivors that are not connected, is replaced by a stricter one, since a malicious server
    picks the dropouts after it has seen the graph: no k / 2 consecutive places hold `window` corrupt members. So wherever
    `window` survivors are left in each such stretch, one of them is honest, and all honest survivors are connected.

    Raises:
        PrivacyError: fewer than three members.
    """
    survivors = quorum(members)
    corrupt, alive = members * CORRUPT_PERCENT // 100, members - -(-members * DROPPED_PERCENT // 100)
    for half in range(2, (members - 1) // 2 if members > COMPLETE_UP_TO else 0):
        window = least_unlikely(members, corrupt, half, members, SECURITY_BITS + 1)
        threshold = least_unlikely(members - 1, corrupt, 2 * half, members, SECURITY_BITS + 1)
        if is_unlikely_below(window, members, alive, half, members, CORRECTNESS_BITS + 1) and is_unlikely_below(
            threshold, members - 1, alive - 1, 2 * half, members, CORRECTNESS_BITS + 1
        ):
            return Plan(members, 2 * half, threshold, window, survivors)
    return Plan(members, members - 1, survivors, 0, survivors)


def least_unlikely(population: int, marked: int, drawn: int, union: int, bits: int) -> int:
    """The smallest x with union * P[at least x of `drawn` are marked] <= 2^-bits, the draw being without replacement."""
    weights, whole = _hypergeometric(population, marked, drawn)
    tail = 0
    for x in range(drawn, -1, -1):
        tail += weights[x]
        if (union * tail) << bits > whole:
            return x + 1
    return 0


def is_unlikely_below(x: int, population: int, marked: int, drawn: int, union: int, bits: int) -> bool:
    """Whether union * P[fewer than x of `drawn` are marked] <= 2^-bits."""
    weights, whole = _hypergeometric(population, marked, drawn)
    return (union * sum(weights[:x])) << bits <= whole


@functools.lru_cache(maxsize=64)
def _hypergeometric(population: int, marked: int, drawn: int) -> tuple[list[int], int]:
    """The weight of 0 to `drawn` marked ones among `drawn`, and all weights' sum, as exact integers."""
    others = population - marked
    first = max(0, drawn - others)
    weights = [0] * (drawn + 1)
    weights[first] = _choose(marked, first) * _choose(others, drawn - first)
    for x in range(first, min(drawn, marked)):
        weights[x + 1] = weights[x] * (marked - x) * (drawn - x) // ((x + 1) * (others - drawn + x + 1))
    return weights, sum(weights)


def _choose(population: int, drawn: int) -> int:
    result = 1
    for i in range(drawn):
        result = result * (population - i) // (i + 1)
    return result


class Graph:
    """The graph of one session: members on a ring in an order that follows from the directory, neighbours k / 2 to either side.

    Args:
        plan: the cohort's numbers.
        seed: the directory's digest, which nobody knew before all keys were chosen.
    """

    def __init__(self, plan: Plan, seed: bytes) -> None:
        def place(member: int) -> bytes:
            return hashlib.sha256(b"emofl secagg 1\0ring\0" + seed + member.to_bytes(2, "big")).digest()

        self.plan = plan
        self._order = sorted(range(plan.members), key=place)
        self._place = {member: place for place, member in enumerate(self._order)}

    def neighbours(self, member: int) -> frozenset[int]:
        """Those with whom `member` shares masks and secrets, without itself; who is alive does not matter here."""
        n, here = self.plan.members, self._place[member]
        if not self.plan.window:
            return frozenset(self._order) - {member}
        half = self.plan.degree // 2
        return frozenset(self._order[(here + step) % n] for step in range(-half, half + 1)) - {member}

    def check(self, alive: Collection[int], smallest: int = SMALLEST) -> None:
        """Raises:
        PrivacyError: with only these members left a sum could say too much, or cannot be unmasked.
        """
        needed = max(self.plan.quorum, smallest)
        if len(alive) < needed:
            raise PrivacyError(f"{len(alive)} of {self.plan.members} devices are left; a sum of fewer than {needed} is refused.")
        if self.plan.window:
            self._check_windows(frozenset(alive))

    def _check_windows(self, alive: frozenset[int]) -> None:
        half, flags = self.plan.degree // 2, [member in alive for member in self._order]
        count = sum(flags[:half])
        for start in range(self.plan.members):
            if count < self.plan.window:
                raise PrivacyError(
                    f"Too many neighbours dropped out: {count} of {half} in a row are left, {self.plan.window} needed."
                )
            count += flags[(start + half) % self.plan.members] - flags[start]
