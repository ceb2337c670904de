"""Real vectors as integers modulo 2^width and back: clip, scale, round at random. The sum cannot overflow, by construction.

A device encodes its update with it before `client.Client.mask`; the server decodes the sum.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, IntegrityError
from common.secagg.packing import NARROWEST, WIDEST
from common.secagg.prg import SEED_BYTES, Random, expand

MOST_MEMBERS = 2**15

CHUNK = 65_536


@dataclass(frozen=True)
class Ring:
    """Fixed-point numbers for a cohort: `largest` = floor((2^(width - 1) - 1) / cohort), and `clip` becomes `largest`.

    So cohort * largest <= 2^(width - 1) - 1: whatever the devices hold, the sum does not wrap.

    Attributes:
        cohort: devices invited, an upper bound on those in the sum.
        clip: every coordinate is clipped to [-clip, clip], in the update's own unit.
        width: bits of the ring, 8 to 32; masked vectors have that many on their way. See `narrowest`.
    """

    cohort: int
    clip: float
    width: int = WIDEST

    def __post_init__(self) -> None:
        if not 1 <= self.cohort <= MOST_MEMBERS or not (math.isfinite(self.clip) and self.clip > 0):
            raise ConfigError(
                f"A ring needs a cohort of 1 to {MOST_MEMBERS} devices and a finite clip above 0, "
                f"not {self.cohort} and {self.clip}."
            )
        if not NARROWEST <= self.width <= WIDEST or self.largest < 1:
            raise ConfigError(f"A ring of {self.width} bits is too narrow or too wide for {self.cohort} devices.")

    @property
    def largest(self) -> int:
        """The largest magnitude of one device's integer."""
        return ((1 << (self.width - 1)) - 1) // self.cohort

    @property
    def bits(self) -> int:
        """Whole bits, with the sign, that one device's integer takes up."""
        return self.largest.bit_length() + 1

    @property
    def step(self) -> float:
        """What one unit of the ring stands for; rounding moves a coordinate by less than this, and on average not at all."""
        return self.clip / self.largest

    def encode(self, update: NDArray[np.floating], random: Random) -> NDArray[np.uint32]:
        """`update` clipped and rounded to a neighbouring integer at random, so that the mean is the clipped value.

        Args:
            update: flat, finite.
            random: 32 bytes are drawn, the key of the rounding's bits.

        Raises:
            IntegrityError: it is not flat, or a coordinate is NaN or infinite.
        """
        if update.ndim != 1 or not np.isfinite(update).all():
            raise IntegrityError("Only a flat vector of finite numbers can be encoded.")
        chance = expand(random(SEED_BYTES), len(update))
        encoded = np.empty(len(update), dtype=np.uint32)
        for start in range(0, len(update), CHUNK):
            piece = slice(start, start + CHUNK)
            scaled = np.clip(update[piece].astype(np.float64) / self.clip, -1.0, 1.0) * self.largest
            rounded = np.floor(scaled + (chance[piece] + 0.5) * 2.0**-32)
            encoded[piece] = self._to_ring(rounded.astype(np.int64))
        return encoded

    def encode_integers(self, integers: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Integers that are already rounded, for mechanisms that add discrete noise.

        Raises:
            IntegrityError: one is beyond `largest`: the caller clamps, since it knows what that does to its guarantee.
        """
        if integers.ndim != 1 or (integers > self.largest).any() or (integers < -self.largest).any():
            raise IntegrityError(f"Integers for this ring are flat and within {self.largest} of zero.")
        return self._to_ring(integers)

    def _to_ring(self, integers: NDArray[np.int64]) -> NDArray[np.uint32]:
        return np.clip(integers, -self.largest, self.largest).astype(np.uint32) & np.uint32(2**self.width - 1)

    def decode_integers(self, total: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The exact integer sum behind a sum in the ring."""
        unused = WIDEST - self.width
        return (np.left_shift(total, unused, dtype=np.uint32).view(np.int32) >> unused).astype(np.int64)

    def decode(self, total: NDArray[np.uint32]) -> NDArray[np.float64]:
        """The sum in the update's own unit."""
        return np.multiply(self.decode_integers(total), self.step, dtype=np.float64)


def narrowest(cohort: int, largest: int) -> int:
    """The width of the narrowest ring in which each of `cohort` devices has integers up to `largest` in magnitude.

    Raises:
        ConfigError: none of 32 bits has.
    """
    width = max(NARROWEST, (cohort * largest).bit_length() + 1)
    if width > WIDEST:
        raise ConfigError(f"Integers up to {largest} of {cohort} devices do not add up within {WIDEST} bits.")
    return width
