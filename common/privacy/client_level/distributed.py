"""Distributed client-level DP: each device clips, rotates, rounds and adds its share of Skellam noise, all inside a secure sum.

The server sees the sum only, which is already private. After Agarwal, Kairouz and Liu 2021, "The Skellam mechanism for
differentially private federated learning"; `common.secagg` adds up, `accounting` says what a round costs.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, IntegrityError
from common.privacy.client_level.central import clip_to_norm
from common.privacy.client_level.rotation import padded_length, rotate, unrotate
from common.privacy.client_level.rounding import largest_squared_norm, round_conditionally
from common.privacy.client_level.samplers import Skellam
from common.privacy.mechanisms import SecureRandom
from common.secagg.graph import quorum
from common.secagg.ring import Ring, narrowest

SPREAD = 4.0
"""Standard deviations of a coordinate of the sum that `bits` hold; 4 as in Kairouz et al. 2021."""

FINEST_SHARE = 16_000.0
"""Standard deviation of a share beyond which a finer grid gains nothing: rounding then adds less than 1e-8 of the noise."""


def noisy_survivors(members: int, colluders: int = 0) -> int:
    """How many honest devices' noise a secure sum of `members` invited devices holds at least.

    `common.secagg` gives out no sum of fewer than `quorum(members)` devices. Colluders tell the server their noise, so it
    does not count.

    Raises:
        ConfigError: the colluders are too many for secure aggregation itself.
    """
    left = quorum(members) - colluders
    if colluders < 0 or 3 * colluders >= members:
        raise ConfigError(f"Secure aggregation stands fewer than a third of {members} devices that collude, not {colluders}.")
    return left


@dataclass(frozen=True)
class DistributedMechanism:
    """What all devices of a round compute with, and the sensitivity that follows from it. The same numbers for all.

    **Who is protected from whom.** A client's update, which might as well have been zero, from the server and whoever sees the
    sum; that the client was among the survivors is known. Each device's noise has variance (z s C)^2 / survivors per coordinate,
    in integers, so any `survivors` devices have (z s C)^2 together: z holds when as many dropped out as may. With more devices
    there is more noise than promised, at most members / survivors times the variance.

    **No clamp.** A coordinate is at most s C + 1 in magnitude before the noise, and the sampler's values are bounded, so the
    integers fit the ring by construction and are never clamped. It matters: clamping each device's integers is no function of
    their sum, and would cost its probability, times 1 + e^epsilon, in delta.

    Attributes:
        members: devices invited, for the ring.
        survivors: honest devices that a sum holds at least, see `noisy_survivors`.
        length: values of an update.
        clip: C, largest L2 norm of an update.
        noise_multiplier: z, standard deviation of the noise in the sum of `survivors` devices, in units of C.
        bits: width of the integers that hold the sum, to `SPREAD` standard deviations, when all updates are alike. It sets the
            grid: more bits, finer steps. Sent are a few more, so that no sum of what devices may send wraps.
    """

    unit: ClassVar[Literal["client"]] = "client"
    members: int
    survivors: int
    length: int
    clip: float
    noise_multiplier: float
    bits: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.survivors <= self.members:
            raise ConfigError(f"Of {self.members} devices, 1 to {self.members} survive, not {self.survivors}.")
        if not all(math.isfinite(v) and v > 0 for v in (self.clip, self.noise_multiplier)) or not 8 <= self.bits <= 24:
            raise ConfigError("Distributed noise needs a clip and a noise multiplier above 0, and 8 to 24 bits.")
        if self.members * self.room > 2**31 - 1:
            raise ConfigError(
                f"Of a 32-bit sum, {self.members} devices leave too few bits to each for this noise: "
                "use fewer bits or smaller cohorts."
            )

    @property
    def padded(self) -> int:
        """d, values of an encoded update."""
        return padded_length(self.length)

    @cached_property
    def scale(self) -> float:
        """s, integers per unit of the update.

        From s^2 C^2 (n^2 / d + z^2 n / survivors) + n / 4 <= (2^(bits - 1) / SPREAD)^2, the variance of a coordinate of the sum
        of n aligned updates after the rotation, with all noise and rounding.
        """
        n, z = self.members, self.noise_multiplier
        room = (2 ** (self.bits - 1) / SPREAD) ** 2 - n / 4
        if room <= 0:
            raise ConfigError(f"{self.bits} bits cannot hold the rounding errors of {n} devices; use more.")
        units = math.sqrt(room / (n**2 / self.padded + z**2 * n / self.survivors))
        finest = min(FINEST_SHARE, self.ring_largest / 100) * math.sqrt(self.survivors) / z
        return min(units, finest, self.ring_largest / 2) / self.clip

    @property
    def ring_largest(self) -> int:
        """The largest magnitude of one device's integers in the widest ring."""
        return Ring(self.members, self.clip).largest

    @property
    def room(self) -> int:
        """No integer that a device sends is larger than this: a coordinate, its rounding, and the sampler's bound."""
        return math.ceil(self.scale * self.clip * (1 + 1e-9)) + 1 + self.share.largest

    @cached_property
    def ring(self) -> Ring:
        """The ring of the secure sum, as narrow as `room` allows; its `step` is 1 / s."""
        width = narrowest(self.members, self.room)
        return Ring(self.members, Ring(self.members, self.clip, width).largest / self.scale, width)

    @cached_property
    def squared_l2(self) -> int:
        """Squared L2 sensitivity of the sum, in integers; every device checks it on its own vector after rounding."""
        return largest_squared_norm(self.scale * self.clip, self.padded)

    @property
    def l1(self) -> float:
        """L1 sensitivity: min(sqrt(d) l2, l2^2), since |k| <= k^2 for integers."""
        return min(math.sqrt(self.padded * self.squared_l2), float(self.squared_l2))

    @property
    def variance(self) -> float:
        """Of the noise on each coordinate of the sum, in integers, when only `survivors` devices are left."""
        return (self.noise_multiplier * self.scale * self.clip) ** 2

    @cached_property
    def share(self) -> Skellam:
        """A device's own noise."""
        return Skellam(self.variance / self.survivors)

    def quantise(self, update: NDArray[np.floating], seed: bytes, random: SecureRandom) -> NDArray[np.int64]:
        """Clipped, rotated, scaled and rounded: (padded,) integers of a squared L2 norm up to `squared_l2`. No noise yet.

        Args:
            update: (length,), in its own unit; one with a NaN or an infinity counts as zero.
            seed: 32 public bytes of the round.
            random: of the rounding.

        Raises:
            IntegrityError: the update has another shape.
        """
        if update.shape != (self.length,):
            raise IntegrityError(f"An update of this round has {self.length} values in one dimension, not {update.shape}.")
        rotated = rotate(clip_to_norm(update, self.clip), seed) * self.scale
        return round_conditionally(rotated, self.scale * self.clip, random)

    def encode(self, update: NDArray[np.floating], seed: bytes, random: SecureRandom) -> NDArray[np.uint32]:
        """What a device masks and sends: its integers with its share of the noise, in the ring. Server sees: the sum only.

        Args:
            update, seed: as in `quantise`.
            random: secure and secret; never used twice for two rounds with the same key.
        """
        integers = self.quantise(update, seed, random)
        integers += self.share.draw(self.padded, random)
        return self.ring.encode_integers(integers)

    def decode(self, total: NDArray[np.uint32], seed: bytes) -> NDArray[np.float64]:
        """The noisy sum of the survivors' clipped updates, (length,), in the update's own unit. The server's side.

        Divide it by a number that is public, such as the number of survivors.

        Raises:
            IntegrityError: the sum has another length.
        """
        if total.shape != (self.padded,):
            raise IntegrityError(f"A sum of this round has {self.padded} values, not {total.shape}.")
        return unrotate(self.ring.decode(total), seed, self.length)
