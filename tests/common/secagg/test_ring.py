import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, IntegrityError
from common.secagg.ring import Ring, narrowest
from tests.common.secagg.rehearsal import Stream


@given(st.integers(1, 2**15), st.integers(17, 32))
def test_the_sum_of_a_whole_cohort_at_its_largest_does_not_overflow(cohort: int, width: int) -> None:
    ring = Ring(cohort, 1.0, width)
    assert ring.cohort * ring.largest <= 2 ** (width - 1) - 1 < ring.cohort * (ring.largest + 1)
    for sign in (1, -1):
        one = ring.encode(np.array([sign * 1e30]), Stream(1))
        assert one[0] < 2**width
        total = (one.astype(np.uint64) * cohort % 2**width).astype(np.uint32)
        assert ring.decode_integers(total)[0] == sign * cohort * ring.largest


@given(st.integers(1, 2**15), st.integers(1, 2**16))
def test_the_narrowest_ring_holds_the_integers_and_one_bit_less_does_not(cohort: int, largest: int) -> None:
    if cohort * largest > 2**31 - 1:
        with pytest.raises(ConfigError, match="do not add up within 32 bits"):
            narrowest(cohort, largest)
        return
    width = narrowest(cohort, largest)
    assert Ring(cohort, 1.0, width).largest >= largest
    assert width == 8 or (2 ** (width - 2) - 1) // cohort < largest


def test_values_of_16_bits_of_a_thousand_and_24_devices_add_up_in_26() -> None:
    assert narrowest(1024, 2**15 - 1) == 26


@pytest.mark.parametrize(("cohort", "width"), [(1000, 10), (3, 7), (3, 33)])
def test_a_ring_that_is_too_narrow_for_its_cohort_is_refused(cohort: int, width: int) -> None:
    with pytest.raises(ConfigError, match="too narrow or too wide"):
        Ring(cohort, 1.0, width)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1), st.sampled_from([17, 22, 32]))
def test_the_decoded_sum_is_the_clipped_sum_up_to_one_step_per_device(cohort: int, clip: float, seed: int, width: int) -> None:
    ring, rng = Ring(cohort, clip, width), np.random.default_rng(seed)
    updates = rng.normal(0, clip, (cohort, 50))
    total = np.zeros(50, dtype=np.uint32)
    for update in updates:
        total += ring.encode(update, secrets.token_bytes)
    total &= np.uint32(2**width - 1)
    exact = np.clip(updates, -clip, clip).sum(axis=0)
    assert np.abs(ring.decode(total) - exact).max() <= cohort * ring.step * (1 + 1e-6) + 1e-9 * clip * cohort


def test_rounding_is_unbiased_and_goes_to_a_neighbour() -> None:
    ring = Ring(2**15, 1.0)
    value = 1000.25 * ring.step
    found = ring.decode_integers(ring.encode(np.full(100_000, value), Stream(3)))
    assert set(found) == {1000, 1001}
    assert abs((found == 1001).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 100_000)
    below = ring.decode_integers(ring.encode(np.full(100_000, -value), Stream(4)))
    assert set(below) == {-1001, -1000}
    assert abs(below.mean() + 1000.25) < 0.01


def test_integers_stay_as_they_are_and_zero_is_zero() -> None:
    ring = Ring(10, 4.0)
    exact = np.array([0, 1, -1, ring.largest, -ring.largest]) * ring.step
    assert ring.decode_integers(ring.encode(exact, Stream(5))).tolist() == [0, 1, -1, ring.largest, -ring.largest]
    assert ring.encode(np.zeros(3), Stream(5)).tolist() == [0, 0, 0]


def test_rounding_draws_one_key_of_32_bytes() -> None:
    random = Stream(1)
    Ring(10, 1.0).encode(np.zeros(1000), random)
    assert random.asked == [32]


@pytest.mark.parametrize("bad", [np.array([np.nan]), np.array([1.0, np.inf]), np.zeros((2, 2))])
def test_what_is_not_flat_and_finite_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(IntegrityError, match="flat vector of finite numbers"):
        Ring(10, 1.0).encode(bad, Stream(1))


def test_ready_made_integers_are_taken_up_to_the_largest_and_no_further() -> None:
    ring = Ring(1000, 1.0)
    integers = np.array([ring.largest, -ring.largest, 0])
    assert ring.decode_integers(ring.encode_integers(integers)).tolist() == integers.tolist()
    for beyond in (ring.largest + 1, -ring.largest - 1):
        with pytest.raises(IntegrityError, match="within"):
            ring.encode_integers(np.array([beyond]))


def test_a_cohort_of_ten_leaves_29_bits_and_one_of_a_thousand_23() -> None:
    assert (Ring(10, 1.0).bits, Ring(1000, 1.0).bits) == (29, 23)


@pytest.mark.parametrize(("cohort", "clip"), [(0, 1.0), (2**15 + 1, 1.0), (10, 0.0), (10, -1.0), (10, np.inf), (10, np.nan)])
def test_a_ring_without_a_sensible_cohort_and_clip_is_refused(cohort: int, clip: float) -> None:
    with pytest.raises(ConfigError, match="cohort of 1"):
        Ring(cohort, clip)
