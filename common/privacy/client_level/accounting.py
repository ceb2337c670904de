"""Client-level epsilon of rounds in both trust models, and the noise that a budget asks for. Whoever plans a run calls it.

Privacy unit: one client, all its updates in all rounds. Common neighbouring relation: the client's update is replaced by zero in
every round (*zero-out*). Never add these epsilons to record-level ones: they protect something else.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr

from common.errors import ConfigError, PrivacyError
from common.privacy.accountant import ORDERS, TOLERANCE, Accountant, Release, calibrate_noise, spent_epsilon
from common.privacy.client_level.distributed import DistributedMechanism
from common.privacy.renyi import one_step

Sampling = Literal["poisson", "fixed", "known"]

NO_PRV = "The PRV accountant knows Gaussian noise under Poisson or known cohorts only; use rdp."

CELLS = 4096
"""Of the grid on which divergences are bounded from above."""


@dataclass(frozen=True)
class CentralRounds:
    """Rounds of `central.CentralMechanism` with the same noise and the same way to choose a cohort.

    Attributes:
        noise_multiplier: z; with adaptive clipping the z that was split, not the z_delta on the updates.
        rate: q, the chance of a client to be in a round; cohort / clients.
        rounds: how many.
        sampling: `poisson`: each client joins independently with chance q, in secret; holds for adding or removing a client, too.
            `fixed`: a cohort of fixed size, uniform among all clients, in secret.
            `known`: whoever attacks may know the cohort, or the client takes part in all these rounds; q does not help.
    """

    noise_multiplier: float
    rate: float
    rounds: int
    sampling: Sampling

    def __post_init__(self) -> None:
        Release(self.noise_multiplier, self.rate, self.rounds)

    def curve(self) -> NDArray[np.float64]:
        """Renyi divergence of all rounds together at `ORDERS`."""
        one: NDArray[np.float64] = np.asarray(ORDERS) / (2 * self.noise_multiplier**2)
        if self.sampling == "poisson":
            one = one_step(self.rate, self.noise_multiplier, ORDERS)
        elif self.sampling == "fixed":
            one = np.minimum(one, _fixed_size(self.noise_multiplier, self.rate))
        total: NDArray[np.float64] = one * self.rounds
        return total


@dataclass(frozen=True)
class DistributedRounds:
    """Rounds of `distributed.DistributedMechanism`. The server knows the cohort, so sampling amplifies nothing.

    Attributes:
        variance: mu, of the noise in the sum, in integers.
        squared_l2, l1: sensitivities of the sum, in integers.
        rounds: in which the client takes part, or may: those of the run.
    """

    variance: float
    squared_l2: float
    l1: float
    rounds: int

    @classmethod
    def of(cls, mechanism: DistributedMechanism, rounds: int) -> "DistributedRounds":
        """`rounds` of `mechanism`, each with as many devices dropped out as may."""
        return cls(mechanism.variance, mechanism.squared_l2, mechanism.l1, rounds)

    def curve(self) -> NDArray[np.float64]:
        """Renyi divergence of all rounds together at `ORDERS`.

        Between integer orders by the chord of (a - 1) D_a, which is convex; a few percent above the Gaussian's where epsilon is
        beyond 15, so that the best order lies below 2.
        """
        orders = np.asarray(ORDERS)
        low, high = np.floor(orders), np.floor(orders) + 1
        below, above = ((k - 1) * skellam_divergence(k, self.variance, self.squared_l2, self.l1) for k in (low, high))
        total: NDArray[np.float64] = self.rounds * (below + (orders - low) * (above - below)) / (orders - 1)
        return total


Rounds = CentralRounds | DistributedRounds


def skellam_divergence(order: NDArray[np.float64], variance: float, squared_l2: float, l1: float) -> NDArray[np.float64]:
    """Renyi divergence at integer orders a > 1 of Sk(0, mu) per coordinate and its shift by integers within the sensitivities.

    a l2^2 / (2 mu) + min(((2 a - 1) l2^2 + 6 l1) / (4 mu^2), 3 l1 / (2 mu)): Agarwal, Kairouz and Liu 2021, the bound for the
    multi-dimensional Skellam mechanism. The first term is the Gaussian's; the rest vanishes as the grid gets finer.
    """
    extra = np.minimum(((2 * order - 1) * squared_l2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return order * squared_l2 / (2 * variance) + extra


@functools.lru_cache(maxsize=1024)
def _fixed_size(noise_multiplier: float, rate: float) -> NDArray[np.float64]:
    return fixed_size_divergence(noise_multiplier, rate, ORDERS)


def fixed_size_divergence(noise_multiplier: float, rate: float, orders: Sequence[float]) -> NDArray[np.float64]:
    """Upper bound of one round's Renyi divergence when a cohort of fixed size is drawn without replacement.

    The Poisson formula is wrong here: a cohort without the client holds somebody else in its place, so the two sums that must be
    told apart differ by up to 2 C and not by C. With P the round's output, Q the same with the client's update zeroed, q the rate
    and g = 1 + q (g' - 1), advanced joint convexity (Balle, Barthe and Gaboardi 2018, "Privacy amplification by subsampling",
    theorem 2) and convexity in the second argument give for the hockey-stick divergences, g >= 1,

        H_g(P, Q) <= q ((1 - b) G_2(g') + b G_1(g')),   H_g(Q, P) <= q G_1(g'),   b = g / g',

    G_s being the Gaussian's between means s C apart: with the client in the cohort against the cohort with anybody else instead
    (s = 2; s = 1 where the client's update is zero), or against the same cohort with the client zeroed (s = 1). Renyi moments
    are integrals of these (Sason and Verdu 2016, "f-divergence inequalities"):

        E = 1 + a (a - 1) int_1^inf (g^(a-2) H_g(P, Q) + g^(-a-1) H_g(Q, P)) dg,   D_a = log(E) / (a - 1),

    and H falls in g, so taking it at the left end of each cell of a grid bounds the integral from above. Of both directions the
    larger counts.
    """
    if rate == 1:
        return np.asarray(orders) / (2 * noise_multiplier**2)
    return np.array([_fixed_size_at(noise_multiplier, rate, float(order)) for order in orders])


def _fixed_size_at(noise_multiplier: float, rate: float, order: float) -> float:
    width = 2.0 / noise_multiplier
    end = width**2 * (order + 0.5) + 12 * width  # beyond, the larger Gaussian's loss has a weighted tail below 1e-30
    inner = np.concatenate([[0.0], np.geomspace(1e-6 * min(1.0, end), end, CELLS)])
    log_g = np.logaddexp(np.log1p(-rate), math.log(rate) + inner)
    log_g[0] = 0.0
    far, near = (_log_gaussian_profile(s / noise_multiplier, inner[:-1]) for s in (2.0, 1.0))
    log_b = np.minimum(log_g[:-1] - inner[:-1], 0.0)
    with np.errstate(divide="ignore"):
        there = math.log(rate) + np.logaddexp(np.log(-np.expm1(log_b)) + far, log_b + near)
    back = math.log(rate) + near

    def moment(forward: NDArray[np.float64], backward: NDArray[np.float64]) -> float:
        rising, falling = _log_power_integral(order - 1, log_g), _log_power_integral(-order, log_g)
        terms = np.concatenate([forward + rising, backward + falling])
        return float(np.logaddexp(0.0, math.log(order * (order - 1)) + np.logaddexp.reduce(terms)))

    return max(moment(there, back), moment(back, there)) / (order - 1)


def _log_power_integral(power: float, log_g: NDArray[np.float64]) -> NDArray[np.float64]:
    """log of the integral of g^(power - 1) over each cell: |g_1^p - g_0^p| / |p|."""
    low, high = power * log_g[:-1], power * log_g[1:]
    top = np.maximum(low, high)
    return np.asarray(top + np.log(-np.expm1(-np.abs(high - low))) - math.log(abs(power)))


def _log_gaussian_profile(distance: float, log_g: NDArray[np.float64]) -> NDArray[np.float64]:
    """log H_g between N(distance, 1) and N(0, 1): Phi(d / 2 - log g / d) - g Phi(-d / 2 - log g / d) (Balle and Wang 2018)."""
    plus = log_ndtr(distance / 2 - log_g / distance)
    minus = log_g + log_ndtr(-distance / 2 - log_g / distance)
    gap = np.minimum(minus - plus, -1e-15)
    return np.asarray(plus + np.log(-np.expm1(gap)))


def client_epsilon(rounds: Sequence[Rounds], delta: float, accountant: Accountant = "rdp") -> float:
    """Client-level epsilon of all `rounds` together, an upper bound; 0 when there are none.

    Args:
        accountant: `prv` is tighter, and known for Gaussian noise under `poisson` or `known` cohorts only.

    Raises:
        PrivacyError: `delta` is not in (0, 1).
        ConfigError: `prv` was asked for where it is not known.
    """
    if accountant == "prv":
        return spent_epsilon([_as_release(part) for part in rounds], delta, "prv")
    if not 0 < delta < 1:
        raise PrivacyError(f"delta must lie between 0 and 1, not {delta}.")
    if not rounds:
        return 0.0
    curve = np.sum([part.curve() for part in rounds], axis=0)
    epsilon = epsilon_of(curve, delta)
    if not math.isfinite(epsilon):
        raise PrivacyError("The accountant found no bound for these rounds; treat the budget as spent.")
    return epsilon


def epsilon_of(curve: NDArray[np.float64], delta: float) -> float:
    """The smallest D_a + log((a - 1) / a) - (log delta + log a) / (a - 1), from the Renyi divergences D_a at `ORDERS`.

    Balle, Barthe, Gaboardi, Hsu and Sato 2020, "Hypothesis testing interpretations and Renyi differential privacy", theorem 21.
    """
    orders = np.asarray(ORDERS)
    candidates = curve + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(np.min(candidates[np.isfinite(candidates)], initial=math.inf)))


def _as_release(part: Rounds) -> Release:
    if isinstance(part, DistributedRounds) or part.sampling == "fixed":
        raise ConfigError(NO_PRV)
    return Release(part.noise_multiplier, 1.0 if part.sampling == "known" else part.rate, part.rounds)


def calibrate_client_noise(
    epsilon: float,
    delta: float,
    rounds: int,
    rate: float,
    sampling: Sampling = "fixed",
    accountant: Accountant = "rdp",
) -> float:
    """Smallest noise multiplier z, to `TOLERANCE`, with which `rounds` central rounds stay within (`epsilon`, `delta`).

    Args:
        rate: cohort / clients.

    Raises:
        PrivacyError: no useful noise fits.
    """
    if sampling != "fixed":
        return calibrate_noise([], rate if sampling == "poisson" else 1.0, rounds, epsilon, delta, accountant)
    if accountant == "prv":
        raise ConfigError(NO_PRV)
    least, most = (calibrate_noise([], q, rounds, epsilon, delta) for q in (rate, 1.0))

    def spent(z: float) -> float:
        return client_epsilon([CentralRounds(z, rate, rounds, "fixed")], delta)

    return _smallest(spent, epsilon, least, most)


def calibrate_distributed(mechanism: DistributedMechanism, epsilon: float, delta: float, rounds: int) -> DistributedMechanism:
    """`mechanism` with the smallest noise multiplier, to `TOLERANCE`, that keeps `rounds` rounds within (`epsilon`, `delta`).

    Its own noise multiplier is not looked at.

    Raises:
        PrivacyError: no useful noise fits; more bits may help.
    """
    least = calibrate_noise([], 1.0, rounds, epsilon, delta)

    def spent(z: float) -> float:
        return client_epsilon([DistributedRounds.of(replace(mechanism, noise_multiplier=z), rounds)], delta)

    return replace(mechanism, noise_multiplier=_smallest(spent, epsilon, least, 4 * least))


def _smallest(spent: Callable[[float], float], epsilon: float, least: float, most: float) -> float:
    """The smallest z between `least` and `most` with spent(z) <= epsilon; `spent` falls in z."""
    if spent(most) > epsilon:
        raise PrivacyError(f"No useful noise keeps epsilon at {epsilon:g}: ask for fewer rounds, more bits or a larger epsilon.")
    if spent(least) <= epsilon:
        return least
    z = math.exp(brentq(lambda x: math.log(spent(math.exp(x)) / epsilon), math.log(least), math.log(most), xtol=TOLERANCE / 2))
    while spent(z) > epsilon:
        z *= 1 + TOLERANCE / 2
    return z
