"""How an update becomes a vector of ring integers for a secure sum, and the sum an update again. Device and server use the same.

Without client-level privacy: fixed-point numbers. Central: clipped to an L2 norm first, with one bit that says whether it was
longer. Distributed: rotated, rounded and under the device's share of Skellam noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.config import ClientLevelRequest, UploadConfig
from common.errors import PrivacyError
from common.privacy.client_level.accounting import DistributedRounds, client_epsilon
from common.privacy.client_level.central import clip_to_norm
from common.privacy.client_level.distributed import DistributedMechanism, noisy_survivors
from common.privacy.client_level.rotation import padded_length
from common.privacy.mechanisms import SecureRandom
from common.secagg.packing import WIDEST
from common.secagg.ring import Ring, narrowest
from common.secagg.wire import Terms

LARGEST_SHORT = 2**15 - 1
"""Of a value of 16 bits."""
MOST_FACES = 2.0**20
"""A device's counts come in units of this, and travel in units of the clip: what is more than it is cut off."""


@dataclass(frozen=True)
class DecodedSum:
    """What a secure sum says.

    Attributes:
        total: the sum of the survivors' updates, flat, in the update's own unit.
        step: how far apart the values of one update were.
        below: in central mode, how many of them were no longer than the clip.
        scored: in federated evaluation, noisy: faces that the model, with the device's own head if it keeps one, was right about,
            and faces.
        histogram: where it was asked for, noisy: faces of each class.
    """

    total: NDArray[np.float64]
    step: float = 0.0
    below: int | None = None
    scored: tuple[float, float] | None = None
    histogram: tuple[float, ...] | None = None


class SumEncoding(Protocol):
    """Both directions, for updates of one length."""

    @property
    def vector_length(self) -> int:
        """Ring integers in an encoded update: `Terms.length`."""

    def width(self, members: int) -> int:
        """Bits of the ring for a cohort of so many: `Terms.width`."""

    def check(self, terms: Terms) -> None:
        """Raises:
        PrivacyError: with this cohort, the privacy that was asked for does not hold.
        """

    def encode(self, update: NDArray[np.floating], terms: Terms, rounding: Callable[[int], bytes]) -> NDArray[np.uint32]:
        """One device's vector.

        Args:
            rounding: the key of what only rounds; noise always comes from the system.
        """

    def decode(self, total: NDArray[np.uint32], terms: Terms) -> DecodedSum:
        """What the sum of vectors says."""


@dataclass(frozen=True)
class FixedPoint:
    """Each value clipped to `clip` and rounded.

    An update with a NaN or an infinity counts as zero: a refusal, coming after training, would tell of this one update.

    Attributes:
        length: values of an update.
        clip: largest magnitude of one.
        short: rounded to 16 bits with the sign, so that log2(cohort) + 16 travel; otherwise as finely as 32 bits in all allow.
    """

    length: int
    clip: float
    short: bool = False

    @property
    def vector_length(self) -> int:
        """As many as values."""
        return self.length

    def width(self, members: int) -> int:
        """As `SumEncoding`."""
        return narrowest(members, LARGEST_SHORT) if self.short else WIDEST

    def ring(self, terms: Terms) -> Ring:
        """With the cohort's size."""
        return Ring(len(terms.cohort), self.clip, terms.width)

    def check(self, terms: Terms) -> None:
        """Nothing is promised."""

    def encode(self, update: NDArray[np.floating], terms: Terms, rounding: Callable[[int], bytes]) -> NDArray[np.uint32]:
        """As `SumEncoding`."""
        values = update if np.isfinite(update).all() else np.zeros_like(update)
        return self.ring(terms).encode(values, rounding)

    def decode(self, total: NDArray[np.uint32], terms: Terms) -> DecodedSum:
        """As `SumEncoding`."""
        return DecodedSum(self.ring(terms).decode(total))


@dataclass(frozen=True)
class Scored:
    """Fixed-point numbers as in `FixedPoint`, and counts in units of `MOST_FACES`.

    Attributes:
        scored: two counts of federated evaluation follow the update.
        classes: so many counts of a class histogram come last.
    """

    length: int
    clip: float
    short: bool = False
    scored: bool = True
    classes: int = 0

    @property
    def _counts(self) -> int:
        return 2 * self.scored + self.classes

    @property
    def vector_length(self) -> int:
        """As many more than values as there are counts."""
        return self.length + self._counts

    @property
    def _plain(self) -> FixedPoint:
        return FixedPoint(self.vector_length, self.clip, self.short)

    def width(self, members: int) -> int:
        """As `SumEncoding`."""
        return self._plain.width(members)

    def check(self, terms: Terms) -> None:
        """Both carry their record-level noise already."""

    def encode(self, update: NDArray[np.floating], terms: Terms, rounding: Callable[[int], bytes]) -> NDArray[np.uint32]:
        """As `SumEncoding`; the last values are the counts."""
        values = update.astype(np.float64)
        values[self.length :] *= self.clip
        return self._plain.encode(values, terms, rounding)

    def decode(self, total: NDArray[np.uint32], terms: Terms) -> DecodedSum:
        """As `SumEncoding`."""
        found = self._plain.decode(total, terms).total
        counts = tuple(float(value) * MOST_FACES / self.clip for value in found[self.length :])
        scored = (counts[0], counts[1]) if self.scored else None
        return DecodedSum(found[: self.length], scored=scored, histogram=counts[2 * self.scored :] or None)


@dataclass(frozen=True)
class Clipped:
    """The device clips its whole update to an L2 norm; the server adds the noise to the sum, which it sees without.

    One more value says whether the update was no longer than the clip, for adaptive clipping (Andrew et al. 2021). It is in the
    sum alone, too.
    """

    length: int
    clip: float
    short: bool = False

    @property
    def vector_length(self) -> int:
        """One more than values."""
        return self.length + 1

    @property
    def _plain(self) -> FixedPoint:
        return FixedPoint(self.vector_length, self.clip, self.short)

    def width(self, members: int) -> int:
        """As `SumEncoding`."""
        return self._plain.width(members)

    def check(self, terms: Terms) -> None:
        """The noise is the server's."""

    def encode(self, update: NDArray[np.floating], terms: Terms, rounding: Callable[[int], bytes]) -> NDArray[np.uint32]:
        """As `SumEncoding`."""
        clipped = clip_to_norm(update, self.clip)
        short = self.clip * float(np.array_equal(clipped, update))
        return self._plain.ring(terms).encode(np.append(clipped, short), rounding)

    def decode(self, total: NDArray[np.uint32], terms: Terms) -> DecodedSum:
        """As `SumEncoding`."""
        ring = self._plain.ring(terms)
        found = ring.decode(total)
        return DecodedSum(found[:-1], ring.step, round(float(found[-1]) / self.clip))


@dataclass(frozen=True)
class NoiseShares:
    """Distributed noise: no party sees a sum without it."""

    length: int
    wish: ClientLevelRequest

    @property
    def vector_length(self) -> int:
        """The next power of two, for the rotation."""
        return padded_length(self.length)

    def width(self, members: int) -> int:
        """As `SumEncoding`; as narrow as the noisy integers allow."""
        return self._mechanism(members).ring.width

    def mechanism(self, terms: Terms) -> DistributedMechanism:
        """With the sizes of the sum's cohort."""
        return self._mechanism(len(terms.cohort))

    def _mechanism(self, members: int) -> DistributedMechanism:
        wish = self.wish
        return DistributedMechanism(members, noisy_survivors(members), self.length, wish.clip, wish.noise_multiplier, wish.bits)

    def check(self, terms: Terms) -> None:
        """Each device computes for itself what the noise it is asked for promises."""
        rounds = DistributedRounds.of(self.mechanism(terms), self.wish.rounds)
        spent = client_epsilon([rounds], self.wish.delta)
        if spent > self.wish.epsilon * (1 + 1e-9):
            raise PrivacyError(
                f"The noise that the server asks for gives a client-level epsilon of {spent:.3f} with this cohort, not the "
                f"{self.wish.epsilon:g} that it promises."
            )

    def encode(self, update: NDArray[np.floating], terms: Terms, rounding: Callable[[int], bytes]) -> NDArray[np.uint32]:
        """As `SumEncoding`; the rotation's seed is the digest of the terms, which everybody has."""
        return self.mechanism(terms).encode(update, terms.digest, SecureRandom())

    def decode(self, total: NDArray[np.uint32], terms: Terms) -> DecodedSum:
        """As `SumEncoding`."""
        return DecodedSum(self.mechanism(terms).decode(total, terms.digest))


def sum_encoding(
    length: int, upload: UploadConfig, wish: ClientLevelRequest | None, scored: bool = False, classes: int = 0
) -> SumEncoding:
    """The encoding that a request asks for, for updates of `length` values.

    Args:
        scored: with the counts of federated evaluation beside them.
        classes: with a histogram of so many classes.
    """
    short = upload.precision == "int16"
    if wish is None:
        counted = scored or classes
        return Scored(length, upload.clip, short, scored, classes) if counted else FixedPoint(length, upload.clip, short)
    return Clipped(length, wish.clip, short) if wish.mode == "central" else NoiseShares(length, wish)
