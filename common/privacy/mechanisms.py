"""The random draws a privacy guarantee rests on: Gaussian noise and Poisson batches, from AES-256-CTR keystreams.

The engines and the training loop call it. Keys come from the operating system, unless a test passes its own.
"""

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from torch import Tensor

from common.errors import ConfigError

DRAWS = 4
"""Gaussians summed per value: an observer of the floating-point sum can no longer enumerate the inputs of one draw
(Holohan and Braghin 2021, "Secure random sampling in differential privacy", section 4)."""

CHUNK = 16_384
"""Pairs of Gaussians made at a time: their working space stays in a core's cache."""

_BLOCK = 16


class SecureRandom:
    """A cryptographically secure stream of uniform bits: AES-256 in counter mode under a fresh key.

    Args:
        key: 32 bytes; None takes them from the operating system. Pass a key only where no privacy depends on it.
    """

    def __init__(self, key: bytes | None = None) -> None:
        cipher = Cipher(algorithms.AES256(key or secrets.token_bytes(32)), modes.CTR(bytes(16)))
        self._stream = cipher.encryptor()

    def uint32(self, count: int) -> NDArray[np.uint32]:
        """`count` independent uniform 32-bit integers."""
        return np.frombuffer(self._stream.update(bytes(4 * count)), dtype=np.uint32)

    def uint64(self, count: int) -> NDArray[np.uint64]:
        """`count` independent uniform 64-bit integers."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)

    def normal(self, count: int, std: float) -> Tensor:
        """(count,) float32 Gaussians of standard deviation `std`, each the scaled sum of `DRAWS` Box-Muller draws."""
        total = torch.zeros(2, (count + 1) // 2)
        zeros = bytes(8 * CHUNK)
        bits = bytearray(8 * CHUNK + _BLOCK)
        words = torch.frombuffer(bits, dtype=torch.int32, count=2 * CHUNK).view(2, CHUNK)
        space = torch.empty(3, CHUNK)
        for start in range(0, total.shape[1], CHUNK):
            cosines, sines = total[:, start : start + CHUNK]
            size = len(cosines)
            radius, angle, turned = space[:, :size]
            for _ in range(DRAWS):
                self._stream.update_into(zeros, bits)
                radius.copy_(words[0, :size])
                radius.mul_(radius).mul_(2.0**-62).add_(2.0**-64).log_().neg_().sqrt_()
                angle.copy_(words[1, :size]).mul_(math.pi * 2.0**-31)
                cosines.addcmul_(radius, torch.cos(angle, out=turned))
                sines.addcmul_(radius, angle.sin_())
        return total.view(-1)[:count].mul_(std / math.sqrt(DRAWS))


@dataclass(frozen=True)
class PoissonSampling:
    """Each of `examples` joins each batch independently with probability `rate`: what the accountants assume.

    Attributes:
        examples: n, the size of the device's data.
        rate: q in (0, 1].
    """

    examples: int
    rate: float

    def __post_init__(self) -> None:
        if self.examples < 1 or not 0 < self.rate <= 1:
            raise ConfigError(f"Poisson sampling needs examples and a rate in (0, 1], not {self.examples} and {self.rate}.")

    @property
    def expected_batch(self) -> float:
        """q n, the fixed divisor of every noisy sum; a batch's own size would reveal who is in it."""
        return self.rate * self.examples

    def batches(self, steps: int, random: SecureRandom) -> Iterator[NDArray[np.int64]]:
        """`steps` batches as rows of the data, in ascending order; a batch may be empty."""
        threshold = min(math.ceil(self.rate * 2**53), 2**53)
        for _ in range(steps):
            yield np.flatnonzero((random.uint64(self.examples) >> np.uint64(11)) < np.uint64(threshold))
