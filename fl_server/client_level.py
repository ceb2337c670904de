"""Client-level privacy of a run: what devices are asked for, the noise on the mean, and what it has cost.

`fl_server.rounds` has one per run.
Central mode trusts this server with its noise. In distributed mode the sum arrives noisy, and this only counts what it costs.
Devices reckon for themselves, with as many as have trained (`common.sum_encoding.NoiseShares.check`): what they would refuse is
not asked for.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from common.config import ClientLevelConfig, ClientLevelRequest
from common.errors import PrivacyError, RunError
from common.privacy.accountant import LARGEST_NOISE
from common.privacy.client_level.accounting import (
    CentralRounds,
    DistributedRounds,
    Rounds,
    calibrate_client_noise,
    calibrate_distributed,
    client_epsilon,
    epsilon_of,
)
from common.privacy.client_level.central import AdaptiveClipping, CentralMechanism, CentralSum
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.privacy.mechanisms import SecureRandom
from common.secagg.graph import SMALLEST
from fl_server.secure_round import SecureSum

MARGIN = 1.01
"""Noise grows in such steps; and in a distributed run it begins one above the least, so that it seldom has to."""

SPARE = 1.05
"""So much more noise a distributed run may begin with for rounds in which most devices drop out before the sum."""


class Cost(TypedDict):
    """What one round was asked for, as its record keeps it.

    Attributes:
        noise_multiplier: z.
        clip: C, largest norm of an update.
        cohort: devices asked; the divisor of a central sum.
        clients: devices there were.
        released: whether a mean left the round.
        next_clip: C of the next round.
        members: devices that a released distributed sum was agreed on with, those that had trained: its grid and its cost follow
            from them. Records of earlier versions do not have it.
    """

    noise_multiplier: float
    clip: float
    cohort: int
    clients: int
    released: bool
    next_clip: float
    members: NotRequired[int]


@dataclass
class ClientLevel:
    """The client-level budget of one run.

    Attributes:
        length: values of an update.
        rounds: of the run.
        random: makes the source of the central noise.
        clip: C as it stands.
        noise_multiplier: z, None before the first round.
        spent: what was released so far.
    """

    config: ClientLevelConfig
    length: int
    rounds: int
    random: Callable[[], SecureRandom] = SecureRandom
    clip: float = 0.0
    noise_multiplier: float | None = None
    spent: list[Rounds] = field(default_factory=list)
    cost: Cost | None = None

    @classmethod
    def resume(cls, config: ClientLevelConfig, length: int, rounds: int, costs: Iterable[Cost]) -> Self | None:
        """As the run's records left it; None where no client-level privacy was asked for."""
        if config.mode == "none":
            return None
        found = cls(config, length, rounds, clip=config.clip)
        dearest = cache(found._dearest)
        for cost in costs:
            z = found.noise_multiplier = cost["noise_multiplier"]
            found.clip = cost["next_clip"]
            if cost["released"]:
                members = cost.get("members") or dearest(z, cost["cohort"])
                found.spent.append(found._price(z, members, cost["clients"], 1))
        return found

    def begin(self, done: int, cohort: int, clients: int) -> ClientLevelRequest:
        """What the round's devices are asked for.

        The noise is chosen in the first round, for all; should other cohorts make the rest cost more, it grows. It never falls.
        A distributed sum stands as many dropouts before it as in it: the noise is enough in the eyes of every device, however
        many of the cohort have trained, from `noisy_survivors` on; for fewer where that takes no more than `SPARE`.

        Args:
            done: rounds before this one.
            cohort: devices asked.
            clients: devices there are.

        Raises:
            PrivacyError: no useful noise keeps the run within its budget; nothing was asked of any device.
            ConfigError: adaptive clipping needs a larger cohort, in the first round; in a later one the clip stays as it is.
        """
        left = max(1, self.rounds - done)
        z = self._chosen(cohort, clients, left)
        if z is None:
            raise PrivacyError(
                f"No useful noise keeps the client-level epsilon at {self.config.epsilon:g} with {cohort} devices: it is all but "
                f"spent after {done} of {self.rounds} rounds, or takes more devices or more than {self.config.bits} bits."
            )
        if self.config.adaptive and self.noise_multiplier is None:
            self._adaptive(cohort).update_noise(z)
        self.noise_multiplier = z
        self.cost = Cost(noise_multiplier=z, clip=self.clip, cohort=cohort, clients=clients, released=False, next_clip=self.clip)
        return ClientLevelRequest(
            mode="central" if self.config.mode == "central" else "distributed",
            epsilon=self.config.epsilon,
            delta=self.config.delta,
            clip=self.clip,
            bits=self.config.bits,
            noise_multiplier=z,
            rounds=self.rounds,
        )

    def central_sum(self, step: float = 0.0) -> CentralSum:
        """Empty.

        Args:
            step: of the secure sum that the updates come through; 0 where this server sees them one by one.
        """
        cost = self._current()
        z = cost["noise_multiplier"]
        if self._follows(cost):
            z = self._adaptive(cost["cohort"]).update_noise(z)
        return CentralSum(CentralMechanism(cost["clip"], z, cost["cohort"], step), self.length)

    def release(self, found: SecureSum) -> NDArray[np.float64]:
        """The mean update of a secure sum: noisy, and the only thing that may leave the round."""
        if self.config.mode == "distributed":
            self._count(found.members)
            return found.decoded.total / found.survivors
        collected = self.central_sum(found.decoded.step)
        collected.add_sum(found.decoded.total, found.decoded.below or 0, found.survivors)
        return self.release_central(collected)

    def release_central(self, collected: CentralSum) -> NDArray[np.float64]:
        """The noisy mean of a central sum; the clip follows the norms, if it is to."""
        cost = self._current()
        mean = collected.release(self.random())
        if self._follows(cost):
            adaptive = self._adaptive(cost["cohort"])
            self.clip = adaptive.next_clip(cost["clip"], collected.below, collected.count, self.random())
        self._count()
        return mean

    def epsilon(self) -> float:
        """Of all that was released."""
        return client_epsilon(self.spent, self.config.delta)

    def _current(self) -> Cost:
        if self.cost is None or self.cost["released"]:
            raise RunError("A round's mean is released once, after the round has begun.")
        return self.cost

    def _count(self, members: int | None = None) -> None:
        cost = self._current()
        self.spent.append(self._price(cost["noise_multiplier"], members or cost["cohort"], cost["clients"], 1))
        self.cost = Cost(**(cost | {"released": True, "next_clip": self.clip}))
        if members is not None:
            self.cost["members"] = members

    def _follows(self, cost: Cost) -> bool:
        """Whether the clip follows the norms in this round: noise on the bits, which shrinks with the cohort, must fit into z."""
        return self.config.adaptive and self._adaptive(cost["cohort"]).sigma_b > cost["noise_multiplier"]

    def _adaptive(self, cohort: int) -> AdaptiveClipping:
        return AdaptiveClipping(cohort)

    def _mechanism(self, z: float, cohort: int) -> DistributedMechanism:
        return DistributedMechanism(cohort, noisy_survivors(cohort), self.length, self.clip, z, self.config.bits)

    def _price(self, z: float, cohort: int, clients: int, rounds: int) -> Rounds:
        if self.config.mode == "distributed":
            return DistributedRounds.of(self._mechanism(z, cohort), rounds)
        # A cohort that is drawn in secret would cost less, but how many of it answered is published, and members see its list.
        return CentralRounds(z, cohort / clients, rounds, "known")

    def _chosen(self, cohort: int, clients: int, left: int) -> float | None:
        """z of the next of `left` rounds, if any keeps the promise."""
        config, distributed, begun = self.config, self.config.mode == "distributed", self.noise_multiplier
        spent = np.sum([part.curve() for part in self.spent], axis=0)

        def enough(z: float, fewest: int) -> bool:
            for members in range(fewest, cohort + 1):
                one = self._price(z, members, clients, 1).curve()
                found = [spent + left * one] + [self.rounds * one] * distributed  # a device takes all rounds to be like its own
                if any(epsilon_of(curve, config.delta) > config.epsilon for curve in found):
                    return False
            return True

        quorum = noisy_survivors(cohort) if distributed else cohort
        if begun:
            return grown(begun, lambda z: enough(z, quorum)) or grown(begun, lambda z: enough(z, cohort))
        first = grown(self._calibrated(cohort, clients), lambda z: enough(z, quorum))
        if first is None or not distributed:
            return first
        fewest = bisect_left(range(quorum), True, lo=SMALLEST, key=lambda members: enough(first * SPARE, members))
        return grown(first, lambda z: enough(z, fewest))

    def _dearest(self, z: float, cohort: int) -> int:
        """Of how many members a sum costs most that devices did not refuse."""
        if self.config.mode != "distributed":
            return cohort
        of = {
            members: epsilon_of(self._price(z, members, cohort, self.rounds).curve(), self.config.delta)
            for members in range(SMALLEST, cohort + 1)
        }
        taken = [members for members in of if of[members] <= self.config.epsilon * (1 + 1e-9)]
        return max(taken, key=lambda members: of[members], default=cohort)

    def _calibrated(self, cohort: int, clients: int) -> float:
        epsilon, delta = self.config.epsilon, self.config.delta
        if self.config.mode == "distributed":
            return MARGIN * calibrate_distributed(self._mechanism(1.0, cohort), epsilon, delta, self.rounds).noise_multiplier
        return calibrate_client_noise(epsilon, delta, self.rounds, cohort / clients, "known")


def grown(z: float, enough: Callable[[float], bool]) -> float | None:
    """The least `z * MARGIN**k` that is enough; None where no useful noise is."""
    if enough(z):
        return z
    useful = max(1, int(math.log(LARGEST_NOISE / z) / math.log(MARGIN)) + 1)

    def lasts(steps: int) -> bool:
        return enough(z * MARGIN**steps)

    low, high = 0, 1
    while high < useful and not lasts(high):  # doubling stays near the answer, where the accountants are at home
        low, high = high, 2 * high
    steps = bisect_left(range(useful), True, lo=min(low + 1, useful), hi=min(high, useful), key=lasts)
    return z * MARGIN**steps if steps < useful else None
