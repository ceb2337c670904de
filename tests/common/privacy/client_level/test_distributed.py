import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from common.errors import ConfigError, IntegrityError
from common.privacy.client_level.central import clip_to_norm
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.privacy.client_level.rotation import unrotate
from common.privacy.client_level.rounding import squared_norm
from common.privacy.mechanisms import SecureRandom
from common.secagg.graph import plan
from tests.common.secagg.rehearsal import Rehearsal

KEY, SEED = bytes(range(32)), bytes(31) + b"\7"


def mechanism(members: int = 10, length: int = 1000, z: float = 1.0, bits: int = 16) -> DistributedMechanism:
    return DistributedMechanism(members, noisy_survivors(members), length, 1.0, z, bits)


class WorstCase(SecureRandom):
    """Rounds every coordinate up."""

    def uint32(self, count: int) -> NDArray[np.uint32]:
        return np.full(count, 2**32 - 1, dtype=np.uint32)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 70), elements=st.floats(width=32)),
    st.integers(8, 24),
    st.floats(0.1, 20.0),
    st.floats(1e-3, 1e3),
    st.booleans(),
)
def test_whatever_a_device_holds_its_integers_stay_within_the_sensitivities(
    update: np.ndarray, bits: int, z: float, clip: float, hostile: bool
) -> None:
    one = DistributedMechanism(20, 14, len(update), clip, z, bits)
    integers = one.quantise(update, SEED, WorstCase(KEY) if hostile else SecureRandom())
    assert integers.shape == (one.padded,)
    assert squared_norm(integers) <= one.squared_l2
    assert int(np.abs(integers).sum()) <= one.l1 * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 1000), st.integers(1, 2**21), st.integers(10, 24), st.floats(0.05, 50.0), st.floats(1e-3, 1e3))
def test_no_cohort_up_to_1000_can_overflow_the_sum(members: int, length: int, bits: int, z: float, clip: float) -> None:
    one = DistributedMechanism(members, noisy_survivors(members), length, clip, z, bits)
    largest = math.floor(one.scale * clip) + 1 + one.share.largest
    assert members * largest <= 2 ** (one.ring.width - 1) - 1
    assert one.ring.step == pytest.approx(1 / one.scale)
    assert one.ring.cohort == members
    one.ring.encode_integers(np.array([largest, -largest]))


def test_a_coordinate_at_its_very_largest_is_encoded_without_a_clamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates that the rotation turns into one spike, with the largest noise that can be drawn, in all devices alike."""
    one = mechanism(members=1000, length=64)
    spike = np.zeros(64)
    spike[5] = 1.0
    monkeypatch.setattr(type(one.share), "draw", lambda self, count, random: np.full(count, self.largest))
    encoded = one.encode(unrotate(spike, SEED, 64), SEED, SecureRandom(KEY))
    total = (encoded.astype(np.uint64) * 1000 % 2**32).astype(np.uint32)
    integers = one.ring.decode_integers(total)
    assert integers[5] / 1000 == pytest.approx(one.scale + one.share.largest, abs=1)
    assert np.delete(integers, 5) / 1000 == pytest.approx(one.share.largest, abs=1)


@pytest.mark.parametrize("members", [3, 8, 10, 100, 257, 1000])
def test_the_fewest_survivors_that_secure_aggregation_accepts_have_the_whole_noise(members: int) -> None:
    """Fails if the shares are sized for all devices: then the noise of those who drop out is missing."""
    one = mechanism(members)
    assert plan(members).quorum * one.share.variance == pytest.approx(one.variance)
    assert (plan(members).quorum - 1) * one.share.variance < one.variance


def test_the_noise_of_the_survivors_is_measured_in_full_at_the_threshold() -> None:
    one = mechanism(members=10, length=2**15, z=2.0)
    random = SecureRandom(KEY)
    survivors = plan(10).quorum
    total = np.zeros(one.padded, dtype=np.uint32)
    for _ in range(survivors):
        total += one.encode(np.zeros(one.length), SEED, random)
    noise = one.ring.decode_integers(total)
    expected = (2.0 * one.scale * one.clip) ** 2
    assert survivors == 7
    assert noise.var() == pytest.approx(expected, rel=0.03)
    assert noise.var() > expected * 10 / 7 * 0.6, "shares for ten devices would leave seven tenths of the noise"
    assert stats.kstest(noise / math.sqrt(expected), "norm").pvalue > 1e-3
    assert one.decode(total, SEED).std() == pytest.approx(2.0, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 1000), st.data())
def test_colluders_know_their_noise_so_it_does_not_count(members: int, data: st.DataObject) -> None:
    colluders = data.draw(st.integers(0, (members - 1) // 3))
    honest = noisy_survivors(members, colluders)
    assert honest == plan(members).quorum - colluders >= 1
    one = DistributedMechanism(members, honest, 10, 1.0, 1.0)
    assert one.share.variance * (plan(members).quorum - colluders) >= one.variance * (1 - 1e-12)


@pytest.mark.parametrize("colluders", [-1, 4])
def test_more_colluders_than_secure_aggregation_stands_are_refused(colluders: int) -> None:
    with pytest.raises(ConfigError, match="third"):
        noisy_survivors(10, colluders)


@settings(max_examples=8, deadline=None)
@given(st.integers(3, 40), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_the_server_decodes_the_sum_of_the_clipped_updates_and_the_noise(members: int, length: int, seed: int) -> None:
    one = mechanism(members, length, z=0.5)
    source, random = np.random.default_rng(seed), SecureRandom()
    updates = source.normal(0, source.choice([0.01, 1.0]), (members, length))
    total = np.zeros(one.padded, dtype=np.uint32)
    for update in updates:
        total += one.encode(update, SEED, random)
    error = one.decode(total, SEED) - sum(clip_to_norm(update, one.clip) for update in updates)
    assert float(np.abs(error).max()) < 7 * math.sqrt(members / one.survivors) * 0.5 + members / one.scale


def test_a_device_map_without_noise_is_right_on_average() -> None:
    one = mechanism(length=50, bits=10)
    update, random = np.random.default_rng(1).normal(0, 0.1, 50), SecureRandom(KEY)
    draws = 3000
    mean = sum(one.quantise(update, SEED, random) for _ in range(draws)) / draws
    assert unrotate(mean / one.scale, SEED, 50) == pytest.approx(clip_to_norm(update, 1.0), abs=5 * 0.5 / one.scale / draws**0.5)


def test_a_secure_sum_with_as_many_dropouts_as_it_stands_gives_the_sum_with_its_whole_noise() -> None:
    one = mechanism(members=7, length=4000, z=1.5)
    round_ = Rehearsal(7, length=one.padded)
    updates = np.random.default_rng(0).normal(0, 0.1, (7, 4000))
    round_.vectors = {member: one.encode(update, SEED, SecureRandom()) for member, update in enumerate(updates)}
    dropped = frozenset({1, 4})
    assert 7 - len(dropped) == plan(7).quorum
    round_.until_masked(dropped)
    round_.confirmed()
    result = round_.unmasked()
    survivors = [member for member in range(7) if member not in dropped]
    error = one.decode(result.total, SEED) - sum(clip_to_norm(updates[member], 1.0) for member in survivors)
    assert error.std() == pytest.approx(1.5, rel=0.06)
    assert abs(error.mean()) < 0.1


def test_two_encodings_of_one_update_differ() -> None:
    one = mechanism()
    update = np.ones(1000)
    assert not np.array_equal(one.encode(update, SEED, SecureRandom()), one.encode(update, SEED, SecureRandom()))


def test_more_bits_make_a_finer_grid_until_rounding_no_longer_matters() -> None:
    scales = [mechanism(bits=bits).scale for bits in range(8, 25)]
    assert scales == sorted(scales)
    finest = mechanism(bits=24)
    assert finest.squared_l2 / (finest.scale * finest.clip) ** 2 < 1.001


def test_a_sum_of_alike_updates_fits_the_bits_it_was_planned_for() -> None:
    one = mechanism(members=30, length=2**12, z=1.0, bits=16)
    update = np.random.default_rng(0).normal(size=2**12)
    random, total = SecureRandom(KEY), np.zeros(one.padded, dtype=np.uint32)
    for _ in range(30):
        total += one.encode(update, SEED, random)
    integers = one.ring.decode_integers(total)
    assert (np.abs(integers) >= 2**15).mean() < 1e-3
    assert integers.std() == pytest.approx(2**15 / 4, rel=0.1)


def test_an_update_with_a_nan_counts_as_zero() -> None:
    one = mechanism(length=4)
    assert not one.quantise(np.array([1.0, math.nan, 0.0, 0.0]), SEED, SecureRandom()).any()


def test_arrays_of_another_shape_are_refused() -> None:
    one = mechanism(length=5)
    with pytest.raises(IntegrityError, match="5 values"):
        one.encode(np.zeros(8), SEED, SecureRandom())
    with pytest.raises(IntegrityError, match="8 values"):
        one.decode(np.zeros(5, dtype=np.uint32), SEED)


@pytest.mark.parametrize(
    "bad",
    [
        {"survivors": 0},
        {"survivors": 11},
        {"clip": 0.0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"bits": 7},
        {"bits": 25},
        {"length": 0},
    ],
)
def test_an_impossible_mechanism_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(mechanism(), **bad)


def test_too_few_bits_for_the_rounding_errors_of_a_large_cohort_are_refused() -> None:
    with pytest.raises(ConfigError, match="use more"):
        DistributedMechanism(10_000, 6_667, 100, 1.0, 1.0, 8)
