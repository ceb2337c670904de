"""Steadies what the model says of one face over time, and says "unsure" where it should. The loop keeps one `Steady` per track.

Pure: a state and a new opinion go in, a new state comes out.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError


@dataclass(frozen=True)
class SmoothingSettings:
    """How steady, and how sure.

    Attributes:
        seconds: time constant of the average; 0 takes each frame as it is.
        lead: how far another class's averaged probability must lie above the shown one's before it takes its place.
        least: below this averaged probability, in [0, 1], nothing is shown but "unsure".
        slack: a class that is shown stays until it falls this far below `least`, so that it does not flicker around it.
    """

    seconds: float = 0.4
    lead: float = 0.1
    least: float = 0.0
    slack: float = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ConfigError(f"The smoothing time must be 0 or more seconds, not {self.seconds}.")
        for name in ("lead", "least", "slack"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"Smoothing's {name} must lie in [0, 1], not {getattr(self, name)}.")


AS_IT_IS = SmoothingSettings(seconds=0.0, lead=0.0, slack=0.0)
"""For pictures that stand alone."""


@dataclass(frozen=True)
class Steady:
    """What is held of one face.

    Attributes:
        probabilities: (C,) float64, the average; sums to 1.
        shown: index of the class that is shown; None: unsure.
    """

    probabilities: NDArray[np.float64]
    shown: int | None


def steadied(before: Steady | None, probabilities: NDArray[np.floating], elapsed: float, settings: SmoothingSettings) -> Steady:
    """The state after one more opinion of the model.

    The average is exponential in time, so that it does not depend on the frame rate: after `elapsed` seconds the past
    weighs exp(-elapsed / seconds).

    Args:
        before: the state so far; None for a face that was not there.
        probabilities: (C,), the model's opinion of this frame, summing to 1.
        elapsed: seconds since the last one; negative counts as 0.
    """
    now = np.asarray(probabilities, dtype=np.float64)
    if before is None or settings.seconds == 0:
        average = now
    else:
        past = math.exp(-max(0.0, elapsed) / settings.seconds)
        average = past * before.probabilities + (1 - past) * now
    return Steady(average, _shown(None if before is None else before.shown, average, settings))


def _shown(before: int | None, average: NDArray[np.float64], settings: SmoothingSettings) -> int | None:
    best = int(average.argmax())
    if before is not None and average[best] - average[before] <= settings.lead:
        best = before
    least = settings.least - (settings.slack if best == before else 0.0)
    return best if average[best] >= least else None
