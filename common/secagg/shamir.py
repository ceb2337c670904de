"""Shamir's secret sharing of 32-byte secrets over the field of integers modulo 2^31 - 1, many secrets at a time.

`client` splits its seed and its key, `server` combines what the survivors reveal. A secret is nine limbs of 30 bits, each
shared with a polynomial of its own: fewer than `threshold` shares say nothing about any limb (Shamir 1979).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import IntegrityError
from common.secagg.prg import Random

PRIME = 2**31 - 1
LIMBS, LIMB_BITS, SECRET_BYTES = 9, 30, 32
SHARE_BYTES = 4 * LIMBS

Elements = NDArray[np.uint64]
_P = np.uint64(PRIME)


def split(secrets: Sequence[bytes], points: Sequence[int], threshold: int, random: Random) -> list[list[bytes]]:
    """Shares of 36 bytes: [secret][point]; any `threshold` of a secret's shares give it back.

    Args:
        secrets: of 32 bytes each.
        points: where the polynomials are evaluated, one per holder: distinct, in [1, 2^31 - 1).
        threshold: in [1, len(points)].
        random: the source of the coefficients.

    Raises:
        IntegrityError: an argument is outside these bounds.
    """
    xs = _points(np.asarray(points, dtype=np.uint64).reshape(1, -1))[0]
    if not 1 <= threshold <= len(xs):
        raise IntegrityError(f"{threshold} of {len(xs)} shares cannot be the threshold.")
    constant = np.stack([_limbs(secret) for secret in secrets])
    value = np.zeros((len(xs), len(secrets), LIMBS), dtype=np.uint64)
    coefficients = _uniform((threshold - 1, len(secrets), LIMBS), random)
    for coefficient in coefficients:
        value = (value + coefficient) * xs[:, None, None] % _P
    value = (value + constant) % _P
    packed = value.astype(">u4")
    return [[packed[holder, secret].tobytes() for holder in range(len(xs))] for secret in range(len(secrets))]


def combine(points: NDArray[np.int64], shares: Sequence[Sequence[bytes]]) -> list[bytes | None]:
    """The secrets behind `shares`; None for each whose shares lie on no polynomial with a 32-byte secret.

    Wrong shares usually give None or a wrong secret: the caller checks against what was committed to.

    Args:
        points: (secrets, threshold): a row per secret.
        shares: [secret][point] of 36 bytes, as many as the threshold that they were split with.

    Raises:
        IntegrityError: a point is zero or occurs twice in its row, or a share is not 36 bytes of field elements.
    """
    if not len(points):
        return []
    xs = _points(points.astype(np.uint64))
    if any(len(share) != SHARE_BYTES for row in shares for share in row) or [len(row) for row in shares] != [xs.shape[1]] * len(
        xs
    ):
        raise IntegrityError(f"A share has {SHARE_BYTES} bytes, and each secret as many shares as points.")
    joined = b"".join(share for row in shares for share in row)
    ys = np.frombuffer(joined, dtype=">u4").astype(np.uint64).reshape(*xs.shape, LIMBS)
    if (ys >= _P).any():
        raise IntegrityError("A share is no list of field elements.")
    weights = _lagrange_at_zero(xs)
    limbs = (weights[:, :, None] * ys % _P).sum(axis=1) % _P
    return [_secret(row) for row in limbs]


def is_share(content: bytes) -> bool:
    """Whether these are the bytes of a share: nine field elements."""
    return len(content) == SHARE_BYTES and bool((np.frombuffer(content, dtype=">u4") < PRIME).all())


def _lagrange_at_zero(xs: Elements) -> Elements:
    """Per row, the weight of each point: the product over the others of x_j / (x_j - x_i)."""
    above, below = np.ones_like(xs), np.ones_like(xs)
    for j in range(xs.shape[1]):
        other = xs[:, j : j + 1]
        factor, difference = np.repeat(other, xs.shape[1], axis=1), (other + _P - xs) % _P
        factor[:, j] = difference[:, j] = 1
        above, below = above * factor % _P, below * difference % _P
    return above * _power(below, PRIME - 2) % _P


def _power(base: Elements, exponent: int) -> Elements:
    result = np.ones_like(base)
    for bit in f"{exponent:b}":
        result = result * result % _P
        if bit == "1":
            result = result * base % _P
    return result


def _points(xs: Elements) -> Elements:
    ordered = np.sort(xs, axis=1)
    if xs.size == 0 or (xs == 0).any() or (xs >= _P).any() or (ordered[:, 1:] == ordered[:, :-1]).any():
        raise IntegrityError("The points of shares are distinct, above zero and below 2^31 - 1.")
    return xs


def _uniform(shape: tuple[int, ...], random: Random) -> Elements:
    """Field elements, uniform: 31 random bits each, drawn again where they are all ones."""
    count, found = int(np.prod(shape)), np.zeros(0, dtype=np.uint32)
    while len(found) < count:
        drawn = np.frombuffer(random(4 * (count - len(found))), dtype=">u4") & np.uint32(PRIME)
        found = np.concatenate([found, drawn[drawn != PRIME]])
    return found.astype(np.uint64).reshape(shape)


def _limbs(secret: bytes) -> Elements:
    if len(secret) != SECRET_BYTES:
        raise IntegrityError(f"A secret has {SECRET_BYTES} bytes, not {len(secret)}.")
    number = int.from_bytes(secret, "big")
    return np.array([number >> (LIMB_BITS * i) & (2**LIMB_BITS - 1) for i in range(LIMBS)], dtype=np.uint64)


def _secret(limbs: Elements) -> bytes | None:
    if (limbs >> np.uint64(LIMB_BITS)).any():
        return None
    number = sum(int(limb) << (LIMB_BITS * i) for i, limb in enumerate(limbs))
    return number.to_bytes(SECRET_BYTES, "big") if number < 2 ** (8 * SECRET_BYTES) else None
