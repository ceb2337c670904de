import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from common.privacy.client_level import rounding
from common.privacy.client_level.rounding import BETA, largest_squared_norm, round_conditionally, squared_norm
from common.privacy.mechanisms import SecureRandom

KEY = bytes(range(32))


class AlwaysUp(SecureRandom):
    """Every coordinate is rounded up: the draw that breaks a norm bound soonest."""

    def uint32(self, count: int) -> NDArray[np.uint32]:
        return np.full(count, 2**32 - 1, dtype=np.uint32)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(-50, 50)), st.booleans())
def test_coordinates_move_by_less_than_one_and_the_norm_stays_bounded(vector: np.ndarray, hostile: bool) -> None:
    norm = float(np.linalg.norm(vector))
    rounded = round_conditionally(vector, norm, AlwaysUp(KEY) if hostile else SecureRandom())
    assert (np.abs(rounded - vector) < 1).all()
    assert squared_norm(rounded) <= largest_squared_norm(norm, len(vector))


def test_a_draw_beyond_the_bound_is_thrown_away() -> None:
    vector = np.full(400, 0.05)
    norm = float(np.linalg.norm(vector))
    assert largest_squared_norm(norm, 400) < 400
    assert not round_conditionally(vector, norm, AlwaysUp(KEY)).any()


def test_the_mean_of_many_roundings_is_the_vector() -> None:
    vector = np.random.default_rng(0).normal(0, 1.5, 256)
    random, draws = SecureRandom(KEY), 4000
    mean = sum(round_conditionally(vector, float(np.linalg.norm(vector)), random) for _ in range(draws)) / draws
    error = (mean - vector) / np.sqrt(0.25 / draws)
    assert np.abs(error).max() < 5
    assert abs(error.mean()) < 4 / math.sqrt(256)


def test_integers_stay_as_they_are() -> None:
    vector = np.array([-3.0, 0.0, 7.0, 2.0])
    assert round_conditionally(vector, float(np.linalg.norm(vector)), SecureRandom()).tolist() == [-3, 0, 7, 2]


@pytest.mark.parametrize(("norm", "size"), [(1000.0, 2**16), (3.0, 2**10), (0.5, 1)])
def test_the_bound_is_the_papers(norm: float, size: int) -> None:
    root = math.sqrt(size)
    first, second = (norm + root) ** 2, norm**2 + size / 4 + math.sqrt(2 * math.log(1 / BETA)) * (norm + root / 2)
    assert pytest.approx(0.6065, abs=1e-4) == BETA
    assert largest_squared_norm(norm, size) == math.floor(min(first, second))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_a_draw_is_thrown_away_with_a_probability_below_beta(size: int, seed: int) -> None:
    """Whatever the vector: the fractions one half, where the variance is largest, included."""
    random = np.random.default_rng(seed)
    vector = random.choice([0.5, 0.1, 1.5, -2.25], size) if seed % 2 else np.full(size, 0.5)
    norm = float(np.linalg.norm(vector))
    draws = np.floor(vector + random.random((500, size)))
    over = (draws**2).sum(axis=1) > largest_squared_norm(norm, size)
    assert over.mean() < BETA + 0.1


def test_squared_norms_are_exact_integers() -> None:
    assert squared_norm(np.full(2**20, 2_000_001, dtype=np.int64)) == 2**20 * 2_000_001**2
    assert rounding.MOST_TRIES * math.log2(BETA) < -140
