"""Central client-level DP: the server clips each update, adds them up with equal weights and adds Gaussian noise once.

For a server that is trusted with single updates and with its own noise; the guarantee holds for what it publishes. `accounting`
says what a round costs.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from common.arrays import l2_norm
from common.errors import ConfigError, IntegrityError
from common.privacy.mechanisms import SecureRandom
from common.privacy.release import LARGEST_NORM, LEAST_NORM

GRID_BITS = 20
SHRINK = 1.0 - 1e-12
"""What is clipped ends up this much below the norm, so that floating-point rounding never lifts it above."""


def clip_to_norm(update: NDArray[np.floating], clip: float) -> NDArray[np.float64]:
    """`update`, of any shape, scaled down to an L2 norm of at most `clip`; shorter ones and zero stay as they are.

    An update with a NaN or an infinity becomes zero: it adds nothing, and its client stays as private as any.
    """
    values = np.asarray(update, dtype=np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return np.zeros_like(values)
    relative = l2_norm(values / largest)
    return values if largest * relative <= clip else values / largest * (clip / relative * SHRINK)


@dataclass(frozen=True)
class CentralMechanism:
    """The noisy mean of clipped updates, with all that its sensitivity depends on.

    The noise has standard deviation z C on the *sum*. The divisor is fixed before the round: the number of replies would say who
    dropped out, and under Poisson sampling it is itself private.

    Attributes:
        clip: C, largest L2 norm of a client's update, over all its parameters together.
        noise_multiplier: z.
        cohort: the divisor, the expected number of clients in a round.
        step: how far apart the values of an update are that came through a secure sum; its rounding adds to the sensitivity.
    """

    unit: ClassVar[Literal["client"]] = "client"
    clip: float
    noise_multiplier: float
    cohort: float
    step: float = 0.0

    def __post_init__(self) -> None:
        if self.step < 0 or not all(math.isfinite(v) and v > 0 for v in (self.clip, self.noise_multiplier, self.cohort)):
            raise ConfigError("Client-level DP needs a clip, a noise multiplier and a cohort, all finite and above 0.")

    @property
    def grid(self) -> float:
        """Spacing of the numbers that are released: a power of two, about 2^-20 of the noise."""
        return 2.0 ** math.floor(math.log2(self.noise_multiplier * self.clip) - GRID_BITS)

    def sensitivity(self, length: int) -> float:
        """L2, of the rounded sum of updates of `length` values, when one client's is added, removed or zeroed."""
        return self.clip + math.sqrt(length) * (self.step + self.grid)

    def std(self, length: int) -> float:
        """Standard deviation of the noise on each coordinate of the sum."""
        return self.noise_multiplier * self.sensitivity(length)


class CentralSum:
    """One round: updates are added as they come and forgotten; the mean is released once.

    Args:
        length: values of a flat update.
    """

    def __init__(self, mechanism: CentralMechanism, length: int) -> None:
        self.mechanism = mechanism
        self.below = 0
        """How many updates were no longer than the clip. Private: give it to `AdaptiveClipping`, show it to nobody."""
        self.count = 0
        """Updates so far."""
        self._sum: NDArray[np.float64] | None = np.zeros(length)

    def add(self, update: NDArray[np.floating]) -> None:
        """Clip a client's flat update and add it, with weight one.

        Raises:
            IntegrityError: its shape is wrong, or the round is over.
        """
        if self._sum is None:
            raise IntegrityError("This round's mean was released; updates belong to the next round.")
        if update.shape != self._sum.shape:
            raise IntegrityError(f"An update of this round has {len(self._sum)} values in one dimension, not {update.shape}.")
        clipped = clip_to_norm(update, self.mechanism.clip)
        self._sum += clipped
        self.count += 1
        self.below += bool(np.isfinite(update).all()) and bool(np.array_equal(clipped, update))

    def add_sum(self, total: NDArray[np.float64], below: int, count: int) -> None:
        """Add the sum of `count` updates that their devices clipped; `below` of them were no longer than the clip.

        Raises:
            IntegrityError: its shape is wrong, or the round is over.
        """
        if self._sum is None or total.shape != self._sum.shape:
            raise IntegrityError(f"A sum of shape {total.shape} is not of this round.")
        self._sum += total
        self.count += count
        self.below += below

    def release(self, random: SecureRandom) -> NDArray[np.float64]:
        """The noisy mean; noise alone where nobody replied.

        Sum and noise are whole multiples of one grid before they meet. Added as floating-point numbers, the sum's low bits would
        show through: which outputs are possible would tell two neighbouring sums apart (Mironov 2012, "On significance of the
        least significant bits for differential privacy").

        Raises:
            IntegrityError: it was released before: the difference of two releases would say more than either.
        """
        if self._sum is None:
            raise IntegrityError("A round's mean is released once.")
        total, self._sum = self._sum, None
        grid, length = self.mechanism.grid, len(total)
        noise = random.normal(length, self.mechanism.std(length) / grid).numpy()
        whole = np.rint(total / grid).astype(np.int64) + np.rint(noise.astype(np.float64)).astype(np.int64)
        return np.asarray(whole * (grid / self.mechanism.cohort))


@dataclass(frozen=True)
class AdaptiveClipping:
    """The clip follows a quantile of the updates' norms: Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private
    learning with adaptive clipping", algorithm 1.

    Each client adds a bit, whether its norm is at most C; C <- C exp(-rate (noisy share of ones - quantile)). An update that is
    replaced by zero is short: its bit turns from 0 to 1, so the sum of bits has sensitivity 1, and the noise on it costs as much
    as a multiplier of sigma_b. (The paper adds and removes clients and centres the bits: sensitivity 1/2, multiplier 2 sigma_b.)

    Attributes:
        cohort: the fixed divisor, as in `CentralMechanism`.
        quantile: gamma, the share of updates that should stay unclipped.
        rate: of the geometric update.
        bit_noise: sigma_b; None is the paper's cohort / 20.
    """

    cohort: float
    quantile: float = 0.5
    rate: float = 0.2
    bit_noise: float | None = None

    def __post_init__(self) -> None:
        if not (self.cohort > 0 and 0 <= self.quantile <= 1 and self.rate > 0 and self.sigma_b > 0):
            raise ConfigError("Adaptive clipping needs a cohort, a quantile in [0, 1], a rate and noise on its bits, above 0.")

    @property
    def sigma_b(self) -> float:
        """Standard deviation of the noise on the sum of the centred bits."""
        return self.cohort / 20 if self.bit_noise is None else self.bit_noise

    def update_noise(self, noise_multiplier: float) -> float:
        """z_delta = (z^-2 - sigma_b^-2)^(-1/2): with it on the updates, both releases together cost as much as z alone.

        Raises:
            ConfigError: the bits alone would cost more than z.
        """
        left = noise_multiplier**-2 - self.sigma_b**-2
        if left <= 0:
            raise ConfigError(
                f"Noise of {self.sigma_b:g} on the clipping bits cannot be part of a noise multiplier of {noise_multiplier:g}: "
                f"use more than {noise_multiplier:g}, a larger cohort, or a larger epsilon."
            )
        return float(left**-0.5)

    def next_clip(self, clip: float, below: int, count: int, random: SecureRandom) -> float:
        """The clip of the next round, which a request can name; it is private, and may be published.

        Args:
            below: how many of the round's updates had a norm up to `clip`.
            count: how many updates there were.
        """
        noise, below = float(random.normal(1, self.sigma_b)[0]), min(max(below, 0), count)
        share = (below - count / 2 + noise) / self.cohort + 0.5
        return min(max(clip * math.exp(-self.rate * (share - self.quantile)), LEAST_NORM), LARGEST_NORM)
