import math
from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp as google_rdp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ive

from common.errors import ConfigError, PrivacyError
from common.privacy.accountant import ORDERS, Release, calibrate_noise, spent_epsilon
from common.privacy.client_level.accounting import (
    CentralRounds,
    DistributedRounds,
    Rounds,
    calibrate_client_noise,
    calibrate_distributed,
    client_epsilon,
    fixed_size_divergence,
    skellam_divergence,
)
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors

DELTA = 1e-5


def mechanism(members: int = 100, length: int = 2**16, z: float = 1.0, bits: int = 20) -> DistributedMechanism:
    return DistributedMechanism(members, noisy_survivors(members), length, 1.0, z, bits)


def skellam_by_summation(order: float, variance: float, shift: int) -> float:
    """Renyi divergence of the shifted Skellam law from the law itself, summed over its support."""
    spread = int(14 * variance**0.5) + 40 * shift + 60
    k = np.arange(-spread, spread + 1)

    def log_pmf(values: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(ive(np.abs(values), variance))

    here, there = log_pmf(k), log_pmf(k - shift)
    kept = np.isfinite(here) & np.isfinite(there)
    return float(np.logaddexp.reduce(order * there[kept] + (1 - order) * here[kept])) / (order - 1)


@pytest.mark.parametrize("variance", [0.5, 2.0, 10.0, 200.0, 4000.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("order", [2, 3, 8, 20])
def test_the_skellam_bound_covers_the_divergence_summed_directly(variance: float, shift: int, order: int) -> None:
    direct = skellam_by_summation(order, variance, shift)
    bound = float(skellam_divergence(np.array(float(order)), variance, shift**2, shift))
    assert bound >= direct * (1 - 1e-9)
    if variance >= 200 * shift:
        assert bound == pytest.approx(direct, rel=0.06)


def test_the_skellam_bound_is_the_papers_formula() -> None:
    """Agarwal, Kairouz and Liu 2021: a l2^2 / 2 mu + min(((2a - 1) l2^2 + 6 l1) / 4 mu^2, 3 l1 / 2 mu), by hand."""
    order = np.array([2.0, 4.0])
    assert skellam_divergence(order, 10.0, 9, 5.0) == pytest.approx([0.9 + 57 / 400, 1.8 + 93 / 400])
    assert skellam_divergence(order, 0.5, 1, 1.0) == pytest.approx([2 + 3, 4 + 3])


@pytest.mark.parametrize("z", [6.0, 8.0, 20.0])
def test_skellam_noise_costs_what_gaussian_noise_costs_once_the_grid_is_fine(z: float) -> None:
    gaussian = client_epsilon([CentralRounds(z, 1.0, 50, "known")], DELTA)
    costs = [client_epsilon([DistributedRounds.of(mechanism(z=z, bits=bits), 50)], DELTA) for bits in (12, 14, 16, 18, 20)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > gaussian * 1.05
    assert gaussian <= costs[-1] < gaussian * 1.005


@pytest.mark.parametrize(("members", "length"), [(20, 2**16), (100, 2**18), (1000, 2**20)])
def test_rounding_makes_the_sensitivity_larger_and_is_accounted_for(members: int, length: int) -> None:
    one = mechanism(members, length, bits=14)
    rounds = DistributedRounds.of(one, 1)
    assert rounds.squared_l2 > (one.scale * one.clip) ** 2
    naive = replace(rounds, squared_l2=(one.scale * one.clip) ** 2)
    assert client_epsilon([rounds], DELTA) > client_epsilon([naive], DELTA)


def test_between_integer_orders_the_skellam_curve_is_the_chord() -> None:
    rounds = DistributedRounds(100.0, 25, 25.0, 1)
    curve = dict(zip(ORDERS, rounds.curve(), strict=True))
    two, three = (float(skellam_divergence(np.array(k), 100.0, 25, 25.0)) for k in (2.0, 3.0))
    assert curve[1.5] == pytest.approx(two)
    assert curve[2.5] == pytest.approx((0.5 * two + 0.5 * 2 * three) / 1.5)
    assert curve[3.0] == pytest.approx(three)


def fixed_size_by_integration(order: float, z: float, rate: float, inside: float, outside: float) -> float:
    """The divergence for one client worth `inside` whose place somebody worth `outside` takes, both along one line."""
    t = np.linspace(-14 * z - 4, 14 * z + 4 + 2 * order, 200_001)

    def log_density(mean: float) -> np.ndarray:
        return -((t - mean) ** 2) / (2 * z**2)

    p = np.logaddexp(math.log1p(-rate) + log_density(outside), math.log(rate) + log_density(inside))
    q = np.logaddexp(math.log1p(-rate) + log_density(outside), math.log(rate) + log_density(0.0))
    width = (t[1] - t[0]) / (math.sqrt(2 * math.pi) * z)
    both = [np.logaddexp.reduce(order * a + (1 - order) * b) + math.log(width) for a, b in ((p, q), (q, p))]
    return float(max(both)) / (order - 1)


@pytest.mark.parametrize("z", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("order", [1.5, 2.0, 6.0])
def test_the_fixed_size_bound_covers_clients_that_pull_in_opposite_directions(z: float, rate: float, order: float) -> None:
    bound = float(fixed_size_divergence(z, rate, [order])[0])
    for outside in (-1.0, -0.5, 0.0, 0.5, 1.0):
        assert bound >= fixed_size_by_integration(order, z, rate, 1.0, outside)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.4])
def test_a_fixed_cohort_costs_more_than_a_poisson_one(rate: float) -> None:
    """The pitfall: Poisson accounting over cohorts of fixed size understates epsilon."""
    fixed, poisson, known = (client_epsilon([CentralRounds(2.0, rate, 100, s)], DELTA) for s in ("fixed", "poisson", "known"))
    assert poisson * 1.2 < fixed < known
    direct = fixed_size_by_integration(4.0, 2.0, rate, 1.0, -1.0)
    poisson_curve = google_rdp.RdpAccountant([4.0])
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(2.0))
    assert direct > float(poisson_curve.compose(event)._rdp[0]), "so the Poisson figure is no bound at all"


@pytest.mark.parametrize(("z", "cohort"), [(2.0, 100), (3.0, 500), (5.0, 1000)])
def test_the_fixed_size_bound_is_below_that_of_wang_balle_and_kasiviswanathan(z: float, cohort: int) -> None:
    """Theirs (2019) holds for replacing a client by any other, a sensitivity of 2 C: dp-accounting gets half the multiplier."""
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    event = dp_accounting.SampledWithoutReplacementDpEvent(10_000, cohort, dp_accounting.GaussianDpEvent(z / 2))
    theirs = google_rdp.RdpAccountant(neighboring_relation=relation)
    published = theirs.compose(dp_accounting.SelfComposedDpEvent(event, 100)).get_epsilon(DELTA)
    ours = client_epsilon([CentralRounds(z, cohort / 10_000, 100, "fixed")], DELTA)
    poisson = client_epsilon([CentralRounds(z, cohort / 10_000, 100, "poisson")], DELTA)
    assert poisson < ours < published


def test_a_fixed_cohort_of_everybody_is_the_plain_gaussian() -> None:
    fixed, known = (client_epsilon([CentralRounds(1.3, 1.0, 20, s)], DELTA) for s in ("fixed", "known"))
    assert fixed == pytest.approx(known)


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.floats(0.5, 20.0), st.floats(1e-3, 1.0), st.integers(1, 1000))
def test_sampling_never_costs_more_than_a_known_cohort(z: float, rate: float, rounds: int) -> None:
    poisson, fixed, known = (client_epsilon([CentralRounds(z, rate, rounds, s)], DELTA) for s in ("poisson", "fixed", "known"))
    assert poisson <= known * (1 + 1e-6)
    assert fixed <= known * (1 + 1e-6)


def test_a_distributed_round_gets_no_amplification() -> None:
    """There is no rate to give: the server knows who took part."""
    one = DistributedRounds.of(mechanism(z=2.0), 100)
    known = client_epsilon([CentralRounds(2.0, 0.01, 100, "known")], DELTA)
    assert client_epsilon([one], DELTA) >= known
    assert not hasattr(one, "rate")


def test_a_cohort_that_is_known_gets_no_amplification() -> None:
    assert client_epsilon([CentralRounds(2.0, 0.01, 10, "known")], DELTA) == client_epsilon(
        [CentralRounds(2.0, 1.0, 10, "known")], DELTA
    )


def test_poisson_and_known_cohorts_cost_what_the_record_accountant_says() -> None:
    for sampling, rate in (("poisson", 0.05), ("known", 1.0)):
        for accountant in ("rdp", "prv"):
            ours = client_epsilon([CentralRounds(1.1, 0.05, 60, sampling)], DELTA, accountant)
            assert ours == pytest.approx(spent_epsilon([Release(1.1, rate, 60)], DELTA, accountant), rel=1e-9)


def test_the_published_figure_of_tensorflow_federateds_tutorial_holds() -> None:
    """3,383 clients, 100 rounds, (2, 1e-5): a Poisson cohort of 120 with noise multiplier 1.2 ("Differential privacy in TFF")."""
    assert client_epsilon([CentralRounds(1.2, 120 / 3383, 100, "poisson")], DELTA) == pytest.approx(2.0, abs=0.02)
    assert client_epsilon([CentralRounds(1.19, 119 / 3383, 100, "poisson")], DELTA) > 1.99
    assert calibrate_client_noise(2.0, DELTA, 100, 120 / 3383, "poisson") == pytest.approx(1.2, abs=0.01)


def test_the_discrete_gaussians_published_conversion_gives_the_zcdp_figure() -> None:
    """rho = T / 2 z^2 in zCDP: epsilon lies below rho + 2 sqrt(rho log(1 / delta)) (Bun and Steinke 2016, proposition 1.3)."""
    rho = 100 / (2 * 10.0**2)
    ours = client_epsilon([DistributedRounds.of(mechanism(z=10.0), 100)], DELTA)
    assert 0.85 * (rho + 2 * math.sqrt(rho * math.log(1 / DELTA))) < ours < rho + 2 * math.sqrt(rho * math.log(1 / DELTA))


def test_one_gaussian_round_is_not_below_the_exact_figure() -> None:
    """Balle and Wang 2018, theorem 8: the exact delta of one Gaussian release."""
    for z in (0.8, 2.0, 5.0):
        epsilon = client_epsilon([CentralRounds(z, 1.0, 1, "known")], DELTA)
        a, b = 1 / (2 * z), epsilon * z
        assert stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b) <= DELTA


def test_rounds_of_different_kinds_add_up() -> None:
    parts: list[Rounds] = [
        CentralRounds(1.5, 0.1, 30, "poisson"),
        CentralRounds(2.5, 0.2, 20, "fixed"),
        CentralRounds(4.0, 0.2, 5, "known"),
        DistributedRounds.of(mechanism(z=4.0), 5),
    ]
    alone = [client_epsilon([part], DELTA) for part in parts]
    together = client_epsilon(parts, DELTA)
    assert max(alone) < together < sum(alone)
    assert client_epsilon([], DELTA) == 0.0
    twice = client_epsilon([replace(parts[0], rounds=15)] * 2, DELTA)
    assert twice == pytest.approx(alone[0])


@pytest.mark.parametrize("sampling", ["poisson", "fixed", "known"])
def test_calibrated_noise_fits_the_budget_and_barely_less_would_not(sampling: str) -> None:
    z = calibrate_client_noise(4.0, DELTA, 50, 0.1, sampling)
    assert client_epsilon([CentralRounds(z, 0.1, 50, sampling)], DELTA) <= 4.0
    assert client_epsilon([CentralRounds(z * 0.995, 0.1, 50, sampling)], DELTA) > 4.0


@pytest.mark.parametrize("bits", [16, 18, 20])
def test_a_calibrated_distributed_mechanism_fits_the_budget_and_barely_less_would_not(bits: int) -> None:
    one = calibrate_distributed(mechanism(bits=bits), 8.0, DELTA, 50)
    assert client_epsilon([DistributedRounds.of(one, 50)], DELTA) <= 8.0
    less = replace(one, noise_multiplier=one.noise_multiplier * 0.995)
    assert client_epsilon([DistributedRounds.of(less, 50)], DELTA) > 8.0
    gaussian = calibrate_noise([], 1.0, 50, 8.0, DELTA)
    assert gaussian * 0.999 <= one.noise_multiplier <= gaussian * 1.02


def test_a_budget_that_no_noise_can_keep_is_refused() -> None:
    with pytest.raises(PrivacyError):
        calibrate_client_noise(0.01, DELTA, 10**6, 0.5, "known")
    with pytest.raises(PrivacyError, match="more bits"):
        calibrate_distributed(mechanism(members=100, length=2**20, bits=10), 1.0, DELTA, 100)


def test_the_prv_accountant_is_refused_where_it_is_not_known() -> None:
    for part in (CentralRounds(1.0, 0.1, 1, "fixed"), DistributedRounds.of(mechanism(), 1)):
        with pytest.raises(ConfigError, match="rdp"):
            client_epsilon([part], DELTA, "prv")
    with pytest.raises(ConfigError, match="rdp"):
        calibrate_client_noise(2.0, DELTA, 10, 0.1, "fixed", "prv")


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_delta_must_be_a_probability(delta: float) -> None:
    with pytest.raises(PrivacyError, match="delta"):
        client_epsilon([CentralRounds(1.0, 1.0, 1, "known")], delta)


@pytest.mark.parametrize("bad", [(0.0, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, 0)])
def test_rounds_without_noise_or_rate_are_refused(bad: tuple[float, float, int]) -> None:
    with pytest.raises(PrivacyError):
        CentralRounds(*bad, "known")
