import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import IntegrityError
from common.secagg.prg import CHUNK, apply, expand


def test_the_mask_of_the_zero_seed_is_the_published_chacha20_keystream() -> None:
    # RFC 7539, appendix A.1, test vector 1.
    published = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert expand(bytes(32), 16).astype("<u4").tobytes() == published


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_a_mask_is_one_keystream_whatever_the_chunks(count: int) -> None:
    seed = bytes(range(32))
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(4 * count))
    assert expand(seed, count).astype("<u4").tobytes() == stream


def test_masks_that_are_added_and_taken_off_leave_the_vector_as_it_was() -> None:
    seeds = [bytes([number]) * 32 for number in range(5)]
    vector = np.arange(CHUNK + 10, dtype=np.uint32)
    masked = vector.copy()
    apply(masked, plus=seeds[:3], minus=seeds[3:])
    assert (masked != vector).mean() > 0.99
    expected = vector.copy()
    for number, seed in enumerate(seeds):
        expected = expected + expand(seed, len(vector)) if number < 3 else expected - expand(seed, len(vector))
    assert (masked == expected).all()
    apply(masked, plus=seeds[3:], minus=seeds[:3])
    assert (masked == vector).all()


@settings(max_examples=40)
@given(st.integers(0, 255))
def test_every_bit_of_the_seed_counts(bit: int) -> None:
    seed = bytes(range(32))
    other = (int.from_bytes(seed, "big") ^ (1 << bit)).to_bytes(32, "big")
    assert (expand(seed, 64) != expand(other, 64)).sum() > 60


@pytest.mark.parametrize("seed", [b"", bytes(4), bytes(31), bytes(33)])
def test_a_seed_of_another_size_is_refused(seed: bytes) -> None:
    with pytest.raises(IntegrityError, match="32 bytes"):
        expand(seed, 4)


@pytest.mark.parametrize("vector", [np.zeros(4, np.int64), np.zeros(4, np.float32), np.zeros((2, 2), np.uint32)])
def test_masks_go_onto_flat_uint32_vectors_only(vector: np.ndarray) -> None:
    with pytest.raises(IntegrityError, match="flat uint32"):
        apply(vector, plus=[bytes(32)], minus=[])
