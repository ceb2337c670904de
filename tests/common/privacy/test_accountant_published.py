"""The accountants against figures that others published, and against both other libraries over random histories."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from dp_accounting import rdp as google_rdp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from common.privacy.accountant import ORDERS, Release, spent_epsilon
from common.privacy.client_level.accounting import CentralRounds

ANY_HISTORY = st.lists(
    st.builds(Release, st.floats(0.7, 10.0), st.sampled_from([0.003, 0.02, 0.125, 0.5, 1.0]), st.integers(1, 200)),
    min_size=1,
    max_size=3,
)


def event(history: list[Release]) -> dp_accounting.DpEvent:
    return dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(r.sample_rate, dp_accounting.GaussianDpEvent(r.noise_multiplier)), r.steps
            )
            for r in history
        ]
    )


def by_mironovs_conversion(release: Release, delta: float) -> float:
    """min D_a + log(1 / delta) / (a - 1) (Mironov 2017, proposition 3), the conversion of the papers below; ours is tighter."""
    orders = np.asarray(ORDERS)
    curve = CentralRounds(release.noise_multiplier, release.sample_rate, release.steps, "poisson").curve()
    return float(np.nanmin(curve + math.log(1 / delta) / (orders - 1)))


@pytest.mark.parametrize(
    ("release", "delta", "published"),
    [
        pytest.param(Release(1.0, 5000 / 763_430, 5000), 1e-9, 4.634, id="McMahan et al. 2018, language models"),
        pytest.param(Release(4.0, 0.01, 10_000), 1e-5, 1.26, id="Abadi et al. 2016, section 3.2"),
        pytest.param(Release(1.3, 250 / 60_000, 3600), 1e-5, 1.18, id="TensorFlow Privacy's tutorial"),
    ],
)
def test_published_figures_come_out_to_the_last_digit_and_our_conversion_is_below(
    release: Release, delta: float, published: float
) -> None:
    digits = len(str(published).split(".")[1])
    assert round(by_mironovs_conversion(release, delta), digits) == published
    assert 0.75 * published < spent_epsilon([release], delta) < published


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True)
@given(ANY_HISTORY)
def test_any_history_of_noises_and_rates_costs_what_both_other_libraries_say(history: list[Release]) -> None:
    ours = spent_epsilon(history, 1e-5)
    google = google_rdp.RdpAccountant(ORDERS).compose(event(history)).get_epsilon(1e-5)
    opacus = RDPAccountant()
    opacus.history = [(r.noise_multiplier, r.sample_rate, r.steps) for r in history]
    # dp-accounting leaves out orders at which its series does not converge, and is a little higher then.
    assert google * 0.99 - 1e-3 <= ours <= google * 1.001 + 1e-3
    assert ours == pytest.approx(opacus.get_epsilon(delta=1e-5, alphas=ORDERS), rel=1e-6)


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True)
@given(ANY_HISTORY, st.randoms(use_true_random=False))
def test_order_and_cutting_of_a_history_do_not_matter(history: list[Release], random: object) -> None:
    cut = [Release(r.noise_multiplier, r.sample_rate, part) for r in history for part in (1, r.steps - 1) if part]
    random.shuffle(cut)  # type: ignore[attr-defined]
    assert spent_epsilon(cut, 1e-5) == pytest.approx(spent_epsilon(history, 1e-5))


def exact_gaussian_epsilon(sigma: float, delta: float) -> float:
    """Of one Gaussian release: delta(epsilon) = Phi(1 / 2s - s e) - e^e Phi(-1 / 2s - s e) (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        above, below = norm.logcdf([0.5 / sigma - sigma * epsilon, -0.5 / sigma - sigma * epsilon])
        return float(np.exp(above) - np.exp(epsilon + below)) - delta

    return float(brentq(excess, 0.0, 100.0, xtol=1e-9))


@pytest.mark.parametrize(("sigma", "steps"), [(4.0, 1), (8.0, 40), (3.0, 20)])
def test_without_sampling_both_accountants_are_above_the_exact_figure_and_prv_hardly(sigma: float, steps: int) -> None:
    exact = exact_gaussian_epsilon(sigma / math.sqrt(steps), 1e-5)
    prv, rdp = (spent_epsilon([Release(sigma, 1.0, steps)], 1e-5, by) for by in ("prv", "rdp"))
    assert exact <= prv <= exact + 0.03
    assert prv <= rdp <= 1.25 * exact


@pytest.mark.slow
@pytest.mark.parametrize(
    "history",
    [
        [Release(0.9, 0.02, 300), Release(1.5, 0.125, 80), Release(6.0, 1.0, 10)],
        [Release(2.4, 0.125, 400), Release(3.1, 0.25, 200)],
    ],
)
def test_mixed_histories_under_prv_agree_with_the_privacy_loss_distribution(history: list[Release]) -> None:
    ours = spent_epsilon(history, 1e-5, "prv")
    google = pld.PLDAccountant().compose(event(history)).get_epsilon(1e-5)
    assert google - 0.01 <= ours <= google + 0.03
    assert ours < spent_epsilon(history, 1e-5)
