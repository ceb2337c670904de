"""Frames per second and latency as a person would read them. The loop measures, the overlay shows."""

import time
from collections.abc import Callable

from fl_client.webcam.seen import Pace


class PaceMeter:
    """Averages over about the last second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = now()
        self._period: float | None = None
        self._latency: float | None = None

    @property
    def pace(self) -> Pace:
        """As of the last `step`; nothing before the first."""
        return Pace(1 / self._period if self._period else None, self._latency)

    def step(self, taken: float | None) -> None:
        """A frame was shown. `taken`: when a camera gave it, by the same clock; None for files."""
        now = self._now()
        period, self._last = now - self._last, now
        self._period = _averaged(self._period, period, period)
        if taken is not None:
            self._latency = _averaged(self._latency, 1000 * (now - taken), period)


def _averaged(before: float | None, new: float, elapsed: float) -> float:
    return new if before is None else before + min(1.0, max(0.05, elapsed)) * (new - before)
