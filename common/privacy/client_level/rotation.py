"""The randomised Hadamard rotation: spreads a vector over all coordinates, so that none is large. `distributed` calls it.

x -> H D x / sqrt(d), with random signs D from a public seed and the Hadamard matrix H. It is orthonormal whatever the seed is:
the seed matters to the error of rounding, never to privacy.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, IntegrityError
from common.secagg.prg import expand

_FACTOR_BITS = 6
"""H of size 2^k is the Kronecker product of matrices of at most 2^6, each one matrix product."""


def padded_length(length: int) -> int:
    """The smallest power of two that is at least `length`."""
    if length < 1:
        raise ConfigError(f"A vector to rotate has at least one value, not {length}.")
    return 1 << (length - 1).bit_length()


@functools.cache
def _hadamard_matrix(bits: int) -> NDArray[np.float64]:
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def hadamard(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """H vector / sqrt(d) in Sylvester's order, for (d,) with d a power of two; it is its own inverse.

    Raises:
        IntegrityError: the length is not a power of two.
    """
    size = len(vector)
    if vector.ndim != 1 or size != padded_length(max(1, size)):
        raise IntegrityError(f"The Hadamard transform takes a flat vector whose length is a power of two, not {vector.shape}.")
    left, done = size.bit_length() - 1, 1
    result = vector
    while left:
        bits = min(left, _FACTOR_BITS)
        result = np.matmul(_hadamard_matrix(bits), result.reshape(-1, 1 << bits, done))
        left, done = left - bits, done << bits
    return np.asarray(result.reshape(-1) / math.sqrt(size))


def signs(seed: bytes, size: int) -> NDArray[np.float64]:
    """(size,) of -1 and 1: the bits of the ChaCha20 keystream under `seed`, lowest bit of each byte first; a set bit is -1."""
    words = expand(seed, -(-size // 32)).astype("<u4")
    bits = np.unpackbits(words.view(np.uint8), count=size, bitorder="little")
    return 1.0 - 2.0 * bits.astype(np.float64)


def rotate(vector: NDArray[np.floating], seed: bytes) -> NDArray[np.float64]:
    """(length,) padded with zeros and rotated: (padded_length(length),) of the same L2 norm.

    Args:
        seed: 32 public bytes; all devices of a round use the same.
    """
    padded = np.zeros(padded_length(len(vector)), dtype=np.float64)
    padded[: len(vector)] = vector
    padded *= signs(seed, len(padded))
    return hadamard(padded)


def unrotate(vector: NDArray[np.float64], seed: bytes, length: int) -> NDArray[np.float64]:
    """The inverse of `rotate` for a vector, or a sum of vectors, of `length` values."""
    return np.asarray(hadamard(vector) * signs(seed, len(vector)))[:length]
