"""How much privacy a list of releases has cost, and which noise fits a budget. Pure; the ledger keeps the releases.

Every release is the Poisson-subsampled Gaussian mechanism under add/remove neighbours, privacy unit one record. The arithmetic is
that of Opacus: RDP (Mironov et al. 2019, "Renyi DP of the sampled Gaussian mechanism") and PRV (Gopi et al. 2021).
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from common.errors import PrivacyError
from common.privacy import renyi
from common.privacy.release import Accountant as Accountant
from common.privacy.release import Release as Release

ORDERS = [1 + x / 10 for x in range(1, 10)] + [1 + x / 4 for x in range(4, 16)] + [float(x) for x in range(5, 64)]
ORDERS += [float(2**k) for k in range(6, 13)]
"""Renyi orders tried by the RDP accountant; any order gives a valid bound, so a sparse grid is safe and at most 1 % loose."""

SMALLEST_NOISE, LARGEST_NOISE = 0.1, 100.0
"""Noise multipliers outside are not sought: below, the bounds are numerically poor; above, the update would carry nothing."""

PRV_ERROR = 0.01
"""Of the PRV accountant's epsilon: Opacus' default."""

MOST_POINTS, MOST_GROUPS = 2**21, 64
"""Of the PRV accountant's grid, 0.4 GB with what is computed on the way; and different releases of which each has one."""

TOLERANCE = 1e-3
"""Relative precision of a calibrated noise multiplier; it is rounded up."""


def _grouped(releases: Iterable[Release]) -> list[Release]:
    steps: Counter[tuple[float, float]] = Counter()
    for release in releases:
        steps[release.noise_multiplier, release.sample_rate] += release.steps
    return [Release(sigma, rate, count) for (sigma, rate), count in steps.items()]


@lru_cache(maxsize=4096)
def _one_step(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    """Renyi divergence of one step at each of `ORDERS`; it adds up over steps."""
    return renyi.one_step(sample_rate, noise_multiplier, ORDERS)


def _points(grouped: list[Release], delta: float) -> float:
    """Of the grid that Opacus' PRV accountant would compute with (its `_get_domain`), or of a part of those of all releases."""
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV, compute_safe_domain_size

    if len(grouped) > MOST_GROUPS:
        return math.inf
    prvs = [PoissonSubsampledGaussianPRV(release.sample_rate, release.noise_multiplier) for release in grouped]
    steps, delta_error = [release.steps for release in grouped], delta / 1000
    half = compute_safe_domain_size(prvs=prvs, max_self_compositions=steps, eps_error=PRV_ERROR, delta_error=delta_error)
    return float(2 * half * math.sqrt(sum(steps) * math.log(12 / delta_error) / 2) / PRV_ERROR)


def spent_epsilon(releases: Sequence[Release], delta: float, accountant: Accountant = "rdp") -> float:
    """Epsilon of all `releases` together at `delta`; 0 when there are none, an upper bound otherwise.

    What would take the PRV accountant more than `MOST_POINTS` is left to the RDP accountant, whose bound holds as well: a server
    chooses the numbers, and could ask for all memory that there is.

    Raises:
        PrivacyError: `delta` is not in (0, 1).
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta must lie between 0 and 1, not {delta}.")
    grouped = _grouped(releases)
    if not grouped:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if accountant == "prv" and _points(grouped, delta) <= MOST_POINTS:
            from opacus.accountants import PRVAccountant  # takes as long to load as half of torch

            prv = PRVAccountant()
            prv.history = [(r.noise_multiplier, r.sample_rate, r.steps) for r in grouped]
            return float(prv.get_epsilon(delta=delta))
        curve = np.sum([r.steps * _one_step(r.noise_multiplier, r.sample_rate) for r in grouped], axis=0)
        epsilon = renyi.epsilon(ORDERS, curve, delta)
    if math.isnan(epsilon):
        raise PrivacyError("The accountant found no bound for these releases; treat the budget as spent.")
    return max(0.0, float(epsilon))


def calibrate_noise(
    spent: Sequence[Release], sample_rate: float, steps: int, epsilon: float, delta: float, accountant: Accountant = "rdp"
) -> float:
    """Smallest noise multiplier, to `TOLERANCE`, with which `steps` more steps keep all releases within (`epsilon`, `delta`).

    Raises:
        PrivacyError: what is already spent leaves no room.
    """

    def over(log_sigma: float) -> float:
        return math.log(
            max(spent_epsilon([*spent, Release(math.exp(log_sigma), sample_rate, steps)], delta, accountant), 1e-12) / epsilon
        )

    low = high = 0.0
    if accountant == "prv":
        high = math.log(calibrate_noise(spent, sample_rate, steps, epsilon, delta, "rdp"))
        low = high - 0.25
    while over(high) > 0:
        low, high = high, min(high + math.log(2), math.log(LARGEST_NOISE))
        if low == high:
            raise PrivacyError(
                f"The budget of epsilon {epsilon:g} at delta {delta:g} is spent: {spent_epsilon(spent, delta, accountant):.3f} "
                f"was used, and no useful noise fits {steps} more steps into what is left."
            )
    while over(low) <= 0:
        if low == math.log(SMALLEST_NOISE):
            return SMALLEST_NOISE
        high, low = low, max(low - math.log(2), math.log(SMALLEST_NOISE))
    root = float(optimize.brentq(over, low, high, xtol=TOLERANCE / 2))
    while over(root) > 0:
        root += TOLERANCE / 2
    return math.exp(root)
