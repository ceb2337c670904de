import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.errors import ConfigError, IntegrityError
from common.privacy.accountant import Release, spent_epsilon
from common.privacy.client_level.central import AdaptiveClipping, CentralMechanism, CentralSum, clip_to_norm
from common.privacy.mechanisms import SecureRandom
from common.privacy.release import LARGEST_NORM, LEAST_NORM

KEY = bytes(range(32))


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, array_shapes(min_dims=0, max_dims=3, min_side=0), elements=st.floats(width=32)),
    st.floats(1e-3, 1e3),
)
def test_no_update_is_longer_than_the_clip_whatever_its_shape_and_values(update: np.ndarray, clip: float) -> None:
    clipped = clip_to_norm(update, clip)
    assert clipped.shape == update.shape
    assert float(np.linalg.norm(clipped.ravel())) <= clip


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e300, 1e300)), st.floats(1e-3, 1e3))
def test_clipping_keeps_the_direction_and_leaves_short_updates_alone(update: np.ndarray, clip: float) -> None:
    clipped = clip_to_norm(update, clip)
    with np.errstate(over="ignore"):
        norm = float(np.linalg.norm(update))
    if norm <= clip:
        assert np.array_equal(clipped, update)
    else:
        assert float(np.linalg.norm(clipped)) == pytest.approx(clip)
        largest = np.abs(update).argmax()
        assert clipped / clipped[largest] == pytest.approx(update / update[largest])


def test_a_single_number_and_a_zero_update_are_clipped_like_any_other() -> None:
    assert clip_to_norm(np.array(-7.0), 2.0) == pytest.approx(-2.0)
    assert clip_to_norm(np.zeros(5), 1.0).tolist() == [0.0] * 5
    assert clip_to_norm(np.array([5e-324, 0.0]), 1.0)[0] == 5e-324


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_adds_nothing_and_counts_as_clipped(bad: float) -> None:
    total = CentralSum(CentralMechanism(1.0, 1e-6, 1.0), 3)
    total.add(np.array([bad, 0.0, 1.0]))
    assert total.below == 0
    assert total.release(SecureRandom(KEY)) == pytest.approx(0.0, abs=1e-4)


def test_the_mean_is_over_the_fixed_cohort_with_equal_weights() -> None:
    total = CentralSum(CentralMechanism(10.0, 1e-9, 4.0), 2)
    for update in ([3.0, 4.0], [30.0, 40.0]):
        total.add(np.array(update))
    assert (total.count, total.below) == (2, 1)
    assert total.release(SecureRandom(KEY)) == pytest.approx([9 / 4, 12 / 4], abs=1e-6)


@pytest.mark.parametrize("replies", [0, 1, 30])
def test_the_noise_on_the_sum_is_z_times_the_clip_however_many_replied(replies: int) -> None:
    mechanism = CentralMechanism(clip=3.0, noise_multiplier=0.8, cohort=50.0)
    total = CentralSum(mechanism, 100_000)
    for _ in range(replies):
        total.add(np.zeros(100_000))
    mean = total.release(SecureRandom(KEY))
    assert mean.std() * 50 == pytest.approx(0.8 * 3.0, rel=0.02)
    assert mechanism.std(100_000) == pytest.approx(0.8 * mechanism.sensitivity(100_000))


@pytest.mark.parametrize("z", [0.5, 6.4])
def test_which_means_are_possible_does_not_depend_on_the_sum(z: float) -> None:
    """Noise on float32's grid and a sum off it would leave the sum's low bits in the open."""
    mechanism, source = CentralMechanism(clip=1.0, noise_multiplier=z, cohort=3.0), np.random.default_rng(0)
    for _ in range(3):
        total = CentralSum(mechanism, 10_000)
        for _ in range(3):
            total.add(source.normal(0, 0.01, 10_000))
        released = total.release(SecureRandom()) * 3.0 / mechanism.grid
        assert np.array_equal(np.rint(released), np.rint(released.round(6)))
        assert np.abs(released - np.rint(released)).max() < 1e-6


def test_all_rounding_is_charged_to_the_sensitivity() -> None:
    exact, coarse = (CentralMechanism(1.0, 2.0, 3.0, step) for step in (0.0, 1e-3))
    assert coarse.sensitivity(10_000) == pytest.approx(exact.sensitivity(10_000) + 0.1)
    assert 1.0 < exact.sensitivity(1_500_000) < 1.01


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (4, 6), elements=st.floats(-1e6, 1e6)), st.floats(0.01, 10.0))
def test_one_client_moves_the_sum_by_at_most_the_sensitivity(updates: np.ndarray, clip: float) -> None:
    mechanism = CentralMechanism(clip, 0.5, 7.0)
    with_all, without = CentralSum(mechanism, 6), CentralSum(mechanism, 6)
    for row, update in enumerate(updates):
        with_all.add(update)
        if row:
            without.add(update)
    same_noise = with_all.release(SecureRandom(KEY)), without.release(SecureRandom(KEY))
    assert float(np.linalg.norm(same_noise[0] - same_noise[1])) * 7.0 <= mechanism.sensitivity(6) * (1 + 1e-9)


def test_a_mean_is_released_once_and_takes_no_update_afterwards() -> None:
    total = CentralSum(CentralMechanism(1.0, 1.0, 1.0), 2)
    total.release(SecureRandom())
    with pytest.raises(IntegrityError, match="once"):
        total.release(SecureRandom())
    with pytest.raises(IntegrityError, match="next round"):
        total.add(np.zeros(2))


def test_an_update_of_another_shape_is_refused() -> None:
    with pytest.raises(IntegrityError, match="2 values"):
        CentralSum(CentralMechanism(1.0, 1.0, 1.0), 2).add(np.zeros((2, 1)))


@pytest.mark.parametrize("bad", [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (math.nan, 1.0, 1.0), (1.0, math.inf, 1.0)])
def test_a_mechanism_without_clip_noise_or_cohort_is_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        CentralMechanism(*bad)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.3, 20.0), st.floats(1.0, 100.0))
def test_updates_and_bits_together_cost_what_the_whole_multiplier_costs(z: float, ratio: float) -> None:
    """An update that is zeroed turns its bit from 0 to 1: sensitivity 1, a multiplier of sigma_b."""
    clipping = AdaptiveClipping(cohort=100.0, bit_noise=z * (1 + ratio))
    split = clipping.update_noise(z)
    assert split > z
    together = spent_epsilon([Release(split, 1.0, 1), Release(clipping.sigma_b, 1.0, 1)], 1e-5)
    assert together == pytest.approx(spent_epsilon([Release(z, 1.0, 1)], 1e-5), rel=1e-6)


def test_the_papers_choice_of_bit_noise_hardly_costs_the_updates_anything() -> None:
    """Andrew et al. 2021 choose sigma_b = m / 20; with 100 clients and z = 1 the updates' noise grows by two percent."""
    clipping = AdaptiveClipping(cohort=100.0)
    assert clipping.sigma_b == 5.0
    assert clipping.update_noise(1.0) == pytest.approx(1.0206, abs=1e-3)


def test_a_bit_count_that_devices_made_up_is_cut_to_what_is_possible() -> None:
    still = AdaptiveClipping(cohort=100.0, bit_noise=1e-9)
    assert still.next_clip(1.0, 10**9, 100, SecureRandom(KEY)) == still.next_clip(1.0, 100, 100, SecureRandom(KEY))
    assert still.next_clip(1.0, -5, 100, SecureRandom(KEY)) == still.next_clip(1.0, 0, 100, SecureRandom(KEY))


def test_bits_that_would_cost_more_than_everything_are_refused() -> None:
    with pytest.raises(ConfigError, match="larger cohort"):
        AdaptiveClipping(cohort=10.0).update_noise(1.0)


def test_the_geometric_step_is_the_papers() -> None:
    still = AdaptiveClipping(cohort=100.0, quantile=0.5, rate=0.2, bit_noise=1e-9)
    assert still.next_clip(1.0, 50, 100, SecureRandom(KEY)) == pytest.approx(1.0, abs=1e-6)
    assert still.next_clip(1.0, 100, 100, SecureRandom(KEY)) == pytest.approx(math.exp(-0.1), abs=1e-6)
    assert still.next_clip(1.0, 0, 100, SecureRandom(KEY)) == pytest.approx(math.exp(0.1), abs=1e-6)
    assert still.next_clip(LEAST_NORM, 100, 100, SecureRandom(KEY)) == LEAST_NORM
    assert still.next_clip(LARGEST_NORM, 0, 100, SecureRandom(KEY)) == LARGEST_NORM


def test_the_bits_get_the_noise_that_is_accounted_for() -> None:
    clipping, random = AdaptiveClipping(cohort=100.0, quantile=0.5, rate=1.0), SecureRandom(KEY)
    noise = [-100 * math.log(clipping.next_clip(1.0, 50, 100, random)) for _ in range(4000)]
    assert np.std(noise) == pytest.approx(clipping.sigma_b, rel=0.06)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
def test_the_clip_finds_the_quantile_of_the_norms_under_noise(quantile: float) -> None:
    clipping = AdaptiveClipping(cohort=100.0, quantile=quantile)
    random, source, clip, tail = SecureRandom(KEY), np.random.default_rng(0), 0.1, []
    for number in range(400):
        norms = np.exp(source.normal(1.0, 0.5, 100))
        clip = clipping.next_clip(clip, int((norms <= clip).sum()), 100, random)
        tail += [float((np.exp(source.normal(1.0, 0.5, 1000)) <= clip).mean())] if number > 200 else []
    assert np.mean(tail) == pytest.approx(quantile, abs=0.03)


@pytest.mark.parametrize("bad", [{"cohort": 0.0}, {"quantile": 1.5}, {"rate": 0.0}, {"bit_noise": 0.0}])
def test_impossible_adaptive_clipping_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        AdaptiveClipping(**{"cohort": 10.0, **bad})
