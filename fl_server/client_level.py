"""Client-level privacy of a run: what devices are asked for, the noise on the mean, and what it has cost.

`fl_server.rounds` has one per run.
Central mode trusts this server with its noise. In distributed mode the sum arrives noisy, and this only counts what it costs.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self, TypedDict

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
)
from common.privacy.client_level.central import AdaptiveClipping, CentralMechanism, CentralSum
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.privacy.mechanisms import SecureRandom
from fl_server.secure_round import SecureSum

MARGIN = 1.01
"""On the noise of a distributed sum: a device that drops out before the sum changes the grid, and so the cost, a little."""


class Cost(TypedDict):
    """What one round was asked for, as its record keeps it.

    Attributes:
        noise_multiplier: z.
        clip: C, largest norm of an update.
        cohort: devices asked; the divisor of a central sum.
        clients: devices there were.
        released: whether a mean left the round.
        next_clip: C of the next round.
    """

    noise_multiplier: float
    clip: float
    cohort: int
    clients: int
    released: bool
    next_clip: float


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
        for cost in costs:
            found.noise_multiplier, found.clip = cost["noise_multiplier"], cost["next_clip"]
            if cost["released"]:
                found.spent.append(found._price(cost["noise_multiplier"], cost["cohort"], cost["clients"], 1))
        return found

    def begin(self, done: int, cohort: int, clients: int) -> ClientLevelRequest:
        """What the round's devices are asked for.

        The noise is chosen in the first round, for all; should other cohorts make the rest cost more, it grows.

        Args:
            done: rounds before this one.
            cohort: devices asked.
            clients: devices there are.

        Raises:
            PrivacyError: no useful noise keeps the run within its budget.
            ConfigError: adaptive clipping needs a larger cohort, in the first round; in a later one the clip stays as it is.
        """
        left = max(1, self.rounds - done)
        z = self._grown(self.noise_multiplier or self._calibrated(cohort, clients), cohort, clients, left)
        if z is None:
            raise PrivacyError(
                f"The client-level budget of epsilon {self.config.epsilon:g} is all but spent after {done} of {self.rounds} "
                "rounds: no useful noise fits into what is left."
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
            self._count()
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

    def _count(self) -> None:
        cost = self._current()
        self.spent.append(self._price(cost["noise_multiplier"], cost["cohort"], cost["clients"], 1))
        self.cost = Cost(**(cost | {"released": True, "next_clip": self.clip}))

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

    def _grown(self, z: float, cohort: int, clients: int, left: int) -> float | None:
        """`z` if the budget then lasts for `left` such rounds, else the least `z * MARGIN**k` with which it does, if any."""

        def lasts(steps: int) -> bool:
            cost = self._price(z * MARGIN**steps, cohort, clients, left)
            return client_epsilon([*self.spent, cost], self.config.delta) <= self.config.epsilon

        if lasts(0):
            return z
        useful = max(1, int(math.log(LARGEST_NOISE / z) / math.log(MARGIN)) + 1)
        low, high = 0, 1
        while high < useful and not lasts(high):  # doubling stays near the answer, where the accountants are at home
            low, high = high, 2 * high
        steps = bisect_left(range(useful), True, lo=min(low + 1, useful), hi=min(high, useful), key=lasts)
        return z * MARGIN**steps if steps < useful else None

    def _calibrated(self, cohort: int, clients: int) -> float:
        epsilon, delta = self.config.epsilon, self.config.delta
        if self.config.mode == "distributed":
            return MARGIN * calibrate_distributed(self._mechanism(1.0, cohort), epsilon, delta, self.rounds).noise_multiplier
        return calibrate_client_noise(epsilon, delta, self.rounds, cohort / clients, "known")
