import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import hadamard as matrix

from common.errors import ConfigError, IntegrityError
from common.privacy.client_level.rotation import hadamard, padded_length, rotate, signs, unrotate
from common.secagg.prg import expand

vectors = arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e3, 1e3))
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("bits", [0, 1, 5, 6, 7, 11])
def test_the_transform_is_the_hadamard_matrix(bits: int) -> None:
    vector = np.random.default_rng(bits).normal(size=2**bits)
    assert hadamard(vector) == pytest.approx(matrix(2**bits) @ vector / 2 ** (bits / 2))


@settings(max_examples=60, deadline=None)
@given(vectors, seeds)
def test_a_rotation_keeps_the_norm_and_is_undone(vector: np.ndarray, seed: bytes) -> None:
    rotated = rotate(vector, seed)
    assert rotated.shape == (padded_length(len(vector)),)
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector))
    assert unrotate(rotated, seed, len(vector)) == pytest.approx(vector, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(vectors, seeds, st.floats(-10, 10))
def test_a_rotation_is_linear_so_the_server_may_unrotate_the_sum(vector: np.ndarray, seed: bytes, factor: float) -> None:
    other = np.random.default_rng(0).normal(size=len(vector))
    both = rotate(vector, seed) + factor * rotate(other, seed)
    assert unrotate(both, seed, len(vector)) == pytest.approx(vector + factor * other, abs=1e-8)


def test_a_single_large_value_is_spread_over_all_coordinates() -> None:
    spike = np.zeros(1000)
    spike[17] = 1.0
    assert np.abs(rotate(spike, bytes(32))) == pytest.approx(1 / 32)


def test_the_signs_are_the_bits_of_the_chacha20_keystream() -> None:
    seed = bytes(range(32))
    word = int(expand(seed, 3)[2])
    assert signs(seed, 96)[64:] == pytest.approx([1 - 2 * (word >> bit & 1) for bit in range(32)])
    assert abs(signs(seed, 100_000).mean()) < 0.02


def test_another_seed_rotates_otherwise_and_a_long_vector_too() -> None:
    vector = np.random.default_rng(0).normal(size=5000)
    first, second = rotate(vector, bytes(32)), rotate(vector, bytes(31) + b"\1")
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


@pytest.mark.parametrize("shape", [(3,), (0,), (6,), (4, 4)])
def test_only_flat_powers_of_two_are_transformed(shape: tuple[int, ...]) -> None:
    with pytest.raises(IntegrityError, match="power of two"):
        hadamard(np.zeros(shape))


def test_padding_is_to_the_next_power_of_two() -> None:
    assert [padded_length(n) for n in (1, 2, 3, 4, 5, 1024, 1025)] == [1, 2, 4, 4, 8, 1024, 2048]
    with pytest.raises(ConfigError):
        padded_length(0)
