"""Masks: a 256-bit seed expanded to uniform 32-bit integers, added to a vector in the ring modulo 2^32.

`client` hides its vector with them, `server` takes them off again.
"""

from collections.abc import Callable, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from numpy.typing import NDArray

from common.errors import IntegrityError

Random = Callable[[int], bytes]
"""So many random bytes: `secrets.token_bytes` on a device, something repeatable in a test."""

SEED_BYTES = 32

CHUNK = 32_768
"""Values masked at a time, so that the piece of the vector and the keystream stay in the cache."""

_ROOM = 16
"""The cipher wants a little more room than it fills."""


def expand(seed: bytes, count: int) -> NDArray[np.uint32]:
    """(count,) uniform uint32: the ChaCha20 keystream under `seed` from nonce and counter zero, read as little-endian words.

    Every seed is used for one vector only, so the nonce may be constant.
    """
    vector = np.zeros(count, dtype=np.uint32)
    apply(vector, plus=[seed], minus=[])
    return vector


def apply(vector: NDArray[np.uint32], *, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    """Add to `vector`, in place, the masks of the seeds in `plus` and subtract those in `minus`, modulo 2^32.

    Raises:
        IntegrityError: a seed has not 32 bytes, or the vector is not a flat uint32 one.
    """
    if vector.dtype != np.uint32 or vector.ndim != 1:
        raise IntegrityError(f"Masks go onto a flat uint32 vector, not onto {vector.ndim} dimensions of {vector.dtype}.")
    added, taken = [_stream(seed) for seed in plus], [_stream(seed) for seed in minus]
    size = min(CHUNK, len(vector))
    zeros, words = bytes(4 * size), bytearray(4 * size + _ROOM)
    mask = np.frombuffer(words, dtype="<u4", count=size)
    for start in range(0, len(vector), CHUNK):
        piece = vector[start : start + CHUNK]
        plain = memoryview(zeros)[: 4 * len(piece)]
        for stream in added:
            stream.update_into(plain, words)
            piece += mask[: len(piece)]
        for stream in taken:
            stream.update_into(plain, words)
            piece -= mask[: len(piece)]


def _stream(seed: bytes) -> CipherContext:
    if len(seed) != SEED_BYTES:
        raise IntegrityError(f"A mask's seed has {SEED_BYTES} bytes, not {len(seed)}.")
    return Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
