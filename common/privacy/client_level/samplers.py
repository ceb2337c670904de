"""Skellam noise in integers, from a secure source, exact up to a total variation below 2^-100 per value.

`distributed` draws a device's share of the noise with it. Sums of independent Skellams are Skellam, which makes shares add up.
"""

import functools
import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, takewhile

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.privacy.mechanisms import SecureRandom

LARGEST_VARIANCE = 2.0**28
"""Of one draw; the table of a Poisson variable then has about 340,000 entries."""

WEIGHT_BITS, WORD_BITS = 192, 64

CHUNK = 65_536


class PoissonTable:
    """The distribution function of a Poisson variable as thresholds T_k on the scale of 2^128: the value is how many T_k <= U.

    U is uniform over [0, 2^128). Its upper 64 bits decide, except where they equal a threshold's upper bits (a chance of about
    2^-47 per draw); only then the lower 64 are drawn, so the arithmetic is that of 128 bits throughout.

    **Error.** Let v_k = p_k / p_m for the mode m = floor(rate). The recursions v_k = v_(k-1) rate / k (upwards) and
    v_(k-1) = v_k k / rate (downwards) have factors of at most 1, so with integers scaled by 2^192 and every product rounded
    down, an error of at most one unit joins per step and none grows: w_k is at most |k - m| units too small. Both recursions stop
    where w_k is 0; what lies beyond sums up to at most K^2 units, for K entries. The cumulative sums of w, hence F(k), are thus
    off by less than 4 K^2 2^-192, and T_k = floor(2^128 F(k)) by 2^-128 more. With K < 2^19 the mass of a point is wrong by less
    than 2^-126, and the total variation of one draw, half the sum of these, below 2^-108.

    Args:
        rate: mean and variance; the exact rational value of the float is used.
    """

    def __init__(self, rate: float) -> None:
        numerator, denominator = rate.as_integer_ratio()
        mode = numerator // denominator
        up, k, weight = [1 << WEIGHT_BITS], mode, 1 << WEIGHT_BITS
        while weight:
            k += 1
            weight = weight * numerator // (denominator * k)
            up.append(weight)
        down, k, weight = [], mode, 1 << WEIGHT_BITS
        while weight and k:
            weight = weight * k * denominator // numerator
            k -= 1
            down.append(weight)
        cumulative = list(accumulate(down[::-1] + up))
        scale = 2 * WORD_BITS
        thresholds = [(value << scale) // cumulative[-1] for value in cumulative]
        first = bisect_right(thresholds, 0)
        self.least = k + first
        """The smallest value that can come; below lies less than 2^-128."""
        kept = list(takewhile(lambda threshold: threshold < 1 << scale, thresholds[first:]))
        self.most = self.least + len(kept)
        """The largest value that can come."""
        self._upper = np.array([t >> WORD_BITS for t in kept], dtype=np.uint64)
        self._lower = np.array([t & (1 << WORD_BITS) - 1 for t in kept], dtype=np.uint64)

    def draw(self, count: int, random: SecureRandom) -> NDArray[np.int64]:
        """(count,) independent values."""
        values = np.empty(count, dtype=np.int64)
        for start in range(0, count, CHUNK):
            piece = values[start : start + CHUNK]
            words = random.uint64(len(piece))
            piece[:] = np.searchsorted(self._upper, words)
            self._settle_ties(piece, words, random)
        values += self.least
        return values

    def _settle_ties(self, values: NDArray[np.int64], words: NDArray[np.uint64], random: SecureRandom) -> None:
        if not len(self._upper):
            return
        for place in np.flatnonzero(self._upper[np.minimum(values, len(self._upper) - 1)] == words):
            first, last = values[place], np.searchsorted(self._upper, words[place], side="right")
            values[place] += np.searchsorted(self._lower[first:last], random.uint64(1)[0], side="right")


@functools.lru_cache(maxsize=4)
def _table(rate: float) -> PoissonTable:
    return PoissonTable(rate)


@dataclass(frozen=True)
class Skellam:
    """Sk(0, variance): the difference of two independent Poisson variables of rate variance / 2 each.

    Attributes:
        variance: of one value, above 0 and at most `LARGEST_VARIANCE`.
    """

    variance: float

    def __post_init__(self) -> None:
        if not 0 < self.variance <= LARGEST_VARIANCE:
            raise ConfigError(f"Skellam noise is drawn with a variance above 0 up to 2^28, not {self.variance:g}.")

    @property
    def largest(self) -> int:
        """No drawn value is larger in magnitude; what the true distribution has beyond is part of the stated total variation.

        Both Poisson values lie where p_k / p_m >= 2^-192. With L = 192 log 2, x = k - m - 1 and m >= rate - 1, the log of that
        quotient is at most -x^2 / (2 rate + 2 x / 3) above the mode (Bennett), and at most -x^2 / (2 rate) below it.
        """
        bound = WEIGHT_BITS * math.log(2)
        return math.ceil(bound / 3 + 2 * math.sqrt(bound**2 / 9 + bound * self.variance)) + 4

    def draw(self, count: int, random: SecureRandom) -> NDArray[np.int64]:
        """(count,) independent values."""
        poisson = _table(self.variance / 2)
        values = poisson.draw(count, random)
        values -= poisson.draw(count, random)
        return values
