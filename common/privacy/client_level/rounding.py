"""Conditional stochastic rounding: real coordinates to integers at random, with a bound on the L2 norm that always holds.

After Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with secure aggregation"
(conditional randomised rounding); Agarwal, Kairouz and Liu 2021 use the same before Skellam noise. `distributed` calls it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from common.privacy.mechanisms import SecureRandom

BETA = math.exp(-0.5)
"""Bound of the chance that a rounding is thrown away; the papers' value. In practice hardly any is."""

MOST_TRIES = 200


def largest_squared_norm(norm: float, size: int) -> int:
    """The integer that the squared L2 norm of a rounded vector does not exceed.

    min((c + sqrt(d))^2, c^2 + d / 4 + sqrt(2 log(1 / beta)) (c + sqrt(d) / 2)), rounded down: squared norms are integers.

    Args:
        norm: c, of the vector before rounding, in units of the integers.
        size: d, its length.
    """
    root = math.sqrt(size)
    likely = norm**2 + size / 4 + math.sqrt(2 * math.log(1 / BETA)) * (norm + root / 2)
    return math.floor(min((norm + root) ** 2, likely))


def squared_norm(integers: NDArray[np.int64]) -> int:
    """Exact, as long as it is below 2^63."""
    return int(np.dot(integers, integers))


def round_conditionally(vector: NDArray[np.float64], norm: float, random: SecureRandom) -> NDArray[np.int64]:
    """Each coordinate becomes one of its two neighbouring integers, the mean unchanged; drawn anew while the norm is too large.

    A single draw is unbiased. The condition moves the mean by at most p sqrt(d) in norm, p < BETA being the chance that a draw is
    thrown away; for vectors after a rotation p is close to 0. How often it drew shows in the time it takes, and nowhere else.

    Args:
        vector: (d,), of an L2 norm up to `norm` (a relative 1e-9 more is harmless: the bound is checked on the integers).

    Returns:
        (d,) integers whose squared norm is at most `largest_squared_norm(norm, d)`, in every case. Should no draw of `MOST_TRIES`
        fit (a chance below 2^-140), coordinates are rounded towards zero.
    """
    most = largest_squared_norm(norm, len(vector))
    for _ in range(MOST_TRIES):
        chance = (random.uint32(len(vector)) + 0.5) * 2.0**-32
        rounded = np.floor(vector + chance).astype(np.int64)
        if squared_norm(rounded) <= most:
            return rounded
    return np.trunc(vector).astype(np.int64)
