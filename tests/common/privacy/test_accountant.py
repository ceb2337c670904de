import dp_accounting
import pytest
from dp_accounting import pld
from dp_accounting import rdp as google_rdp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from common.errors import PrivacyError
from common.privacy import accountant
from common.privacy.accountant import Release, calibrate_noise, spent_epsilon

SCHEDULES = [
    [Release(1.1, 0.01, 1000)],
    [Release(0.8, 0.05, 400), Release(1.4, 0.02, 300)],
    [Release(2.0, 1.0, 20)],
    [Release(1.0, 0.1, 5)] * 4,
]


def google(releases: list[Release]) -> dp_accounting.DpEvent:
    return dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(r.sample_rate, dp_accounting.GaussianDpEvent(r.noise_multiplier)), r.steps
            )
            for r in releases
        ]
    )


def test_nothing_released_costs_nothing() -> None:
    assert spent_epsilon([], 1e-5) == 0.0


@pytest.mark.parametrize("releases", SCHEDULES)
def test_rdp_agrees_with_dp_accounting(releases: list[Release]) -> None:
    theirs = google_rdp.RdpAccountant().compose(google(releases)).get_epsilon(1e-5)
    assert spent_epsilon(releases, 1e-5) == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("releases", SCHEDULES)
def test_rdp_agrees_with_opacus(releases: list[Release]) -> None:
    opacus = RDPAccountant()
    opacus.history = [(r.noise_multiplier, r.sample_rate, r.steps) for r in releases]
    assert spent_epsilon(releases, 1e-5) == pytest.approx(opacus.get_epsilon(delta=1e-5), rel=0.02)


@pytest.mark.parametrize("releases", SCHEDULES[:3])
def test_prv_agrees_with_the_privacy_loss_distribution_of_dp_accounting(releases: list[Release]) -> None:
    theirs = pld.PLDAccountant().compose(google(releases)).get_epsilon(1e-5)
    ours = spent_epsilon(releases, 1e-5, "prv")
    assert theirs - 0.01 <= ours <= theirs + 0.03


def test_the_published_figure_of_tensorflow_privacys_tutorial_holds() -> None:
    """60,000 examples, batch 250, noise 1.3, 15 epochs, delta 1e-5: epsilon 1.18 with the conversion of Mironov 2017."""
    ours = spent_epsilon([Release(1.3, 250 / 60000, 15 * 240)], 1e-5)
    assert 0.85 < ours <= 1.19


def test_the_published_figure_of_abadi_et_al_holds() -> None:
    """q 0.01, sigma 4, 10,000 steps, delta 1e-5: epsilon 1.26 by the moments accountant (2016, section 3.2)."""
    ours = spent_epsilon([Release(4.0, 0.01, 10_000)], 1e-5)
    assert 0.95 < ours <= 1.27


def test_prv_is_tighter_than_rdp() -> None:
    releases = [Release(0.9, 0.05, 500)]
    assert spent_epsilon(releases, 1e-5, "prv") < spent_epsilon(releases, 1e-5, "rdp")


def test_history_counts_across_runs_and_rounds() -> None:
    once, twice = [Release(1.0, 0.1, 10)], [Release(1.0, 0.1, 10), Release(1.0, 0.1, 10)]
    assert spent_epsilon(twice, 1e-5) == pytest.approx(spent_epsilon([Release(1.0, 0.1, 20)], 1e-5))
    assert spent_epsilon(twice, 1e-5) > spent_epsilon(once, 1e-5)


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    rate=st.floats(0.01, 1.0),
    steps=st.integers(1, 300),
    epsilon=st.floats(2.0, 500.0),
    earlier=st.sampled_from([[], [Release(8.0, 0.02, 5)]]),
)
def test_calibrated_noise_fits_the_budget_and_barely_less_would_not(
    rate: float, steps: int, epsilon: float, earlier: list[Release]
) -> None:
    sigma = calibrate_noise(earlier, rate, steps, epsilon, 1e-5)
    assert spent_epsilon([*earlier, Release(sigma, rate, steps)], 1e-5) <= epsilon
    if sigma > 0.101:
        assert spent_epsilon([*earlier, Release(sigma * 0.995, rate, steps)], 1e-5) > epsilon


def test_a_budget_between_the_last_steps_of_the_search_is_not_overspent() -> None:
    for epsilon in (60.0, 82.4, 95.0, 120.0):
        sigma = calibrate_noise([], 1.0, 1, epsilon, 1e-5)
        assert spent_epsilon([Release(sigma, 1.0, 1)], 1e-5) <= epsilon


@pytest.mark.parametrize(
    "releases",
    [
        [Release(0.1, 0.5, 1000)],
        [Release(0.6, 1 / 2000, 2_000_000_000)],
        [Release(1e-3, 1.0, 1)],
        [Release(2.0 + n / 100, 0.1, 1) for n in range(100)],
    ],
)
def test_what_would_take_all_memory_is_left_to_the_other_accountant(
    releases: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PRVAccountant, "get_epsilon", lambda *_, **__: pytest.fail("would not return"))
    assert spent_epsilon(releases, 1e-5, "prv") == spent_epsilon(releases, 1e-5, "rdp")


def test_no_request_makes_a_prv_calibration_last(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[float] = []

    def counted(grouped: list[Release], delta: float) -> float:
        sizes.append(points(grouped, delta))
        return sizes[-1]

    points = accountant._points
    monkeypatch.setattr(accountant, "_points", counted)
    sigma = calibrate_noise([], 1 / 2000, 2000 * 20, 8.0, 1e-5, "prv")
    assert spent_epsilon([Release(sigma, 1 / 2000, 2000 * 20)], 1e-5, "prv") <= 8.0
    assert len(sizes) < 40


def test_prv_calibration_needs_less_noise_for_the_same_epsilon() -> None:
    rdp, prv = (calibrate_noise([], 0.05, 200, 4.0, 1e-5, accountant) for accountant in ("rdp", "prv"))
    assert prv < rdp
    assert spent_epsilon([Release(prv, 0.05, 200)], 1e-5, "prv") <= 4.0


def test_a_spent_budget_cannot_be_calibrated() -> None:
    with pytest.raises(PrivacyError, match="is spent"):
        calibrate_noise([Release(0.5, 0.5, 100)], 0.1, 10, 1.0, 1e-5)


@pytest.mark.parametrize("bad", [(0.0, 0.1, 1), (float("nan"), 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, 0)])
def test_a_release_without_noise_rate_or_steps_is_refused(bad: tuple[float, float, int]) -> None:
    with pytest.raises(PrivacyError):
        Release(*bad)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, float("nan")])
def test_delta_must_be_a_probability(delta: float) -> None:
    with pytest.raises(PrivacyError):
        spent_epsilon([], delta)


def test_a_budget_that_would_need_useless_noise_is_refused_and_not_overspent() -> None:
    with pytest.raises(PrivacyError, match="no useful noise"):
        calibrate_noise([], 1.0, 300, 0.5, 1e-5)
