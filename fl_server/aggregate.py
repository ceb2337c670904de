"""Adds up updates as they arrive, in memory of one model, whatever the cohort's size. Pure; `fl_server.strategy` calls it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.arrays import Arrays, flatten, l2_norm, unflatten
from common.errors import ReplyError
from common.privacy.client_level.central import CentralSum

SCALE = 2.0**30
"""Updates are added as multiples of 1 / SCALE in 64-bit integers: exact, so the order of arrival changes nothing."""

BLOCK = 16_384
"""Values added at a time, so that they stay in the cache."""


@dataclass(frozen=True)
class UpdateShape:
    """What a valid update looks like.

    Attributes:
        shapes: of each trained parameter by name.
        max_norm: largest L2 norm over all parameters; at most 1000, so that 2^23 updates cannot overflow the sum.
    """

    shapes: dict[str, tuple[int, ...]]
    max_norm: float

    @property
    def size(self) -> int:
        """Number of values in an update."""
        return sum(math.prod(shape) for shape in self.shapes.values())


class Mean(Protocol):
    """Updates are added one by one; then their mean is taken once."""

    count: int

    def add(self, update: Arrays) -> float:
        """As `RunningMean`."""

    def mean(self) -> Arrays:
        """As `RunningMean`."""


class ClippedMean:
    """The noisy mean of clipped updates, in central client-level privacy.

    Args:
        collected: empty.
        release: takes its noisy mean.
    """

    def __init__(self, shape: UpdateShape, collected: CentralSum, release: Callable[[CentralSum], NDArray[np.float64]]) -> None:
        self._shape, self._collected, self._release = shape, collected, release
        self.count = 0

    def add(self, update: Arrays) -> float:
        """Add one update, clipped, and return the L2 norm of what was added.

        Raises:
            ReplyError: a value is not finite.
        """
        flat, norm = _measured(update)
        self._collected.add(flat)
        self.count += 1
        return min(norm, self._collected.mechanism.clip)

    def mean(self) -> Arrays:
        """The noisy mean by parameter name, float32."""
        return unflatten(self._release(self._collected).astype(np.float32), self._shape.shapes)


class RunningMean:
    """The mean of the updates so far, each with the same weight.

    Equal weights keep the sum's sensitivity to one device known, and ask no device how many faces it holds.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self._shape = shape
        self._sum = np.zeros(shape.size, dtype=np.int64)
        self.count = 0

    def add(self, update: Arrays) -> float:
        """Add one update and return its L2 norm.

        Raises:
            ReplyError: a value is not finite, or the norm is too large; the sum is left as it was.
        """
        flat, norm = _measured(update)
        if norm > self._shape.max_norm:
            raise ReplyError(f"The update's norm is {norm:.3g}; at most {self._shape.max_norm:g} is accepted.")
        for start in range(0, len(flat), BLOCK):
            part = slice(start, start + BLOCK)
            self._sum[part] += np.rint(flat[part] * SCALE).astype(np.int64)
        self.count += 1
        return norm

    def mean(self) -> Arrays:
        """The mean update by parameter name, float32.

        Raises:
            ReplyError: nothing was added.
        """
        if self.count == 0:
            raise ReplyError("No update arrived.")
        return unflatten((self._sum / (SCALE * self.count)).astype(np.float32), self._shape.shapes)


def _measured(update: Arrays) -> tuple[NDArray[np.float64], float]:
    """An update as one vector, and its L2 norm.

    Raises:
        ReplyError: a value is not finite.
    """
    flat = flatten(update).astype(np.float64)
    norm = l2_norm(flat)
    if not math.isfinite(norm):
        raise ReplyError("The update holds values that are not finite.")
    return flat, norm
