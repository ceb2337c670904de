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
from common.privacy.dpsgd.native import kernels

DRAWS = 4
"""Gaussians summed per value: an observer of the floating-point sum can no longer enumerate the inputs of one draw
(Holohan and Braghin 2021, "Secure random sampling in differential privacy", section 4)."""

CHUNK = 65_536
"""Pairs of Gaussians made at a time, so that their working space stays in the cache."""

_BLOCK = 16
"""The cipher wants room for one more AES block than it fills."""


class SecureRandom:
    """A cryptographically secure stream of uniform bits: AES-256 in counter mode under a fresh key.

    The native kernel makes the same Gaussians of the same bits as torch, to rounding.

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
        """(count,) float32 Gaussians of standard deviation `std`, each the scaled sum of `DRAWS` Box-Muller draws.

        A draw's radius comes from 32 bits and its angle from 16: over 65,536 equidistant angles every moment up to order 65,535
        is that of the whole circle, and a value still depends on `DRAWS` * 48 bits.
        """
        pairs = (count + 1) // 2
        total = torch.zeros(2, pairs)
        size = min(CHUNK, pairs)
        zeros = bytes(6 * size)
        bits = bytearray(len(zeros) + _BLOCK)
        words, halves = _view(bits, torch.int32, size, 0), _view(bits, torch.int16, size, 4 * size)
        radius, angle, turned = torch.empty(3, size).unbind()
        least, native = torch.full((size,), 2.0**-64), kernels.fits(total)
        for cosines, sines in torch.split(total, CHUNK, 1):
            if len(cosines) < size:
                size = len(cosines)
                words, halves, radius, angle, turned, least = (v[:size] for v in (words, halves, radius, angle, turned, least))
            for _ in range(DRAWS):
                self._stream.update_into(zeros, bits)
                if native:
                    kernels.box_muller(words, halves, cosines, sines)
                    continue
                radius.copy_(words)
                torch.addcmul(least, radius, radius, value=2.0**-62, out=radius)
                radius.log_().neg_().sqrt_()
                angle.copy_(halves).mul_(math.pi * 2.0**-15)
                cosines.addcmul_(radius, torch.cos(angle, out=turned))
                sines.addcmul_(radius, angle.sin_())
        return total.view(-1)[:count].mul_(std / math.sqrt(DRAWS))


def _view(bits: bytearray, dtype: torch.dtype, count: int, offset: int) -> Tensor:
    return torch.frombuffer(bits, dtype=dtype, count=count, offset=offset) if count else torch.empty(0, dtype=dtype)


@dataclass(frozen=True)
class PoissonSampling:
    """Each of `examples` joins each batch independently with probability `rate`: what the accountants assume.

    Attributes:
        examples: n, the size of the device's data.
        rate: q in (0, 1].
        expected_batch: the fixed divisor of every noisy sum, about q n. A batch's own size would reveal who is in it.
    """

    examples: int
    rate: float
    expected_batch: float

    def __post_init__(self) -> None:
        if self.examples < 1 or not 0 < self.rate <= 1 or not self.expected_batch > 0:
            raise ConfigError(f"Poisson sampling needs examples and a rate in (0, 1], not {self.examples} and {self.rate}.")

    def batches(self, steps: int, random: SecureRandom) -> Iterator[NDArray[np.int64]]:
        """`steps` batches as rows of the data, in ascending order; a batch may be empty."""
        threshold = min(math.ceil(self.rate * 2**53), 2**53)
        for _ in range(steps):
            yield np.flatnonzero((random.uint64(self.examples) >> np.uint64(11)) < np.uint64(threshold))
