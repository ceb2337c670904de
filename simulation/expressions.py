"""What muscles do when a face shows an emotion: intensities of FACS action units, for `simulation.drawing`.

Action units and their prototypes follow P. Ekman, W. V. Friesen and J. C. Hager, Facial Action Coding System (2002),
and Ekman and Friesen's EMFACS tables of emotion prediction.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 43)
"""Inner brow raiser 1, outer brow raiser 2, brow lowerer 4, upper lid raiser 5, cheek raiser 6, lid tightener 7,
nose wrinkler 9, upper lip raiser 10, lip corner puller 12, dimpler 14, lip corner depressor 15, chin raiser 17,
lip stretcher 20, lip tightener 23, lips part 25, jaw drop 26, eyes closed 43."""

_ROW = {unit: row for row, unit in enumerate(ACTION_UNITS)}

_ONE_SIDED = frozenset({"contempt"})

_WEAKEST = 0.35
"""Intensity of the faintest expression, in 0..1; a neutral face has none."""
_MISSING, _UNRELATED = 0.06, 0.04
"""Probability that an action unit of the prototype stays still; mean intensity of every unit's unrelated movement."""
_MIXED, _MOST_MIXED = 0.12, 0.4
"""Probability that a second emotion is mixed in, and its largest share."""

PROTOTYPES: dict[str, tuple[dict[int, float], ...]] = {
    "neutral": ({},),
    "happiness": (
        {6: 0.8, 12: 1.0, 25: 0.8},
        {6: 0.7, 12: 0.9},
        {6: 0.9, 12: 1.0, 25: 1.0, 26: 0.45},
    ),
    "surprise": (
        {1: 1.0, 2: 1.0, 5: 0.8, 25: 1.0, 26: 0.9},
        {1: 1.0, 2: 1.0, 5: 0.6, 25: 0.8, 26: 0.5},
    ),
    "fear": (
        {1: 1.0, 2: 0.5, 4: 0.8, 5: 1.0, 20: 0.9, 25: 0.8, 26: 0.25},
        {1: 1.0, 2: 0.4, 4: 0.9, 5: 0.9, 20: 1.0, 25: 0.3},
        {1: 1.0, 2: 0.6, 4: 0.7, 5: 1.0, 20: 0.6, 25: 0.9, 26: 0.5},
    ),
    "sadness": (
        {1: 1.0, 4: 0.5, 15: 0.9, 17: 0.5},
        {1: 0.9, 4: 0.4, 15: 0.8, 43: 0.4},
        {1: 1.0, 4: 0.6, 15: 0.8, 17: 0.3, 25: 0.2},
    ),
    "anger": (
        {4: 1.0, 5: 0.4, 7: 0.8, 23: 0.9},
        {4: 1.0, 7: 0.8, 10: 0.5, 20: 0.4, 23: 0.3, 25: 0.9},
        {4: 1.0, 5: 0.6, 7: 0.7, 17: 0.6, 23: 0.8},
    ),
    "disgust": (
        {4: 0.3, 6: 0.4, 7: 0.3, 9: 1.0, 10: 0.7, 15: 0.5},
        {4: 0.2, 6: 0.4, 7: 0.5, 9: 0.9, 10: 1.0, 25: 0.5},
        {4: 0.4, 7: 0.4, 9: 1.0, 10: 0.4, 15: 0.7, 17: 0.6},
    ),
    "contempt": (
        {12: 0.7, 14: 0.9},
        {10: 0.4, 12: 0.5, 14: 1.0},
    ),
}
"""Ways to show each emotion: intensity of each action unit, in 0..1, when it is shown at full strength."""


@dataclass(frozen=True)
class Expression:
    """One moment of a face.

    Attributes:
        units: (A, 2) float64 intensities in 0..1.3 of `ACTION_UNITS`; column 0 is the picture's left side.
        gaze: where the eyes look, right and down, in -1..1.
    """

    units: NDArray[np.float64]
    gaze: tuple[float, float] = (0.0, 0.0)

    def side(self, column: int) -> dict[int, float]:
        """Action unit -> intensity on one side of the picture, 0 left or 1 right."""
        return dict(zip(ACTION_UNITS, self.units[:, column].tolist(), strict=True))

    def middle(self) -> dict[int, float]:
        """Action unit -> mean intensity of both sides."""
        return dict(zip(ACTION_UNITS, self.units.mean(1).tolist(), strict=True))


def prototype(emotion: str, variant: int = 0, side: int = 0) -> NDArray[np.float64]:
    """(A, 2) intensities of one way to show `emotion`; a one-sided emotion is shown on `side`."""
    units = np.zeros((len(ACTION_UNITS), 2))
    for unit, intensity in PROTOTYPES[emotion][variant].items():
        units[_ROW[unit]] = intensity
    if emotion in _ONE_SIDED:
        units[:, 1 - side] *= 0.1
    return units


def draw_expression(emotion: str, rng: np.random.Generator, among: tuple[str, ...]) -> Expression:
    """A random expression of `emotion`; what is mixed in comes from `among`."""
    units = _one(emotion, rng)
    units *= _WEAKEST + (1 - _WEAKEST) * rng.beta(2.4, 1.1)
    units[rng.random(len(units)) < _MISSING] = 0.0
    if rng.random() < _MIXED:
        share = rng.uniform(0.15, _MOST_MIXED)
        units = (1 - share) * units + share * _one(among[rng.integers(len(among))], rng)
    units += rng.exponential(_UNRELATED, (len(units), 1))
    units *= 1 + 0.08 * rng.standard_normal(units.shape)
    right, down = (0.3 * rng.standard_normal(2)).clip(-1, 1).tolist()
    return Expression(units.clip(0.0, 1.3), (right, down))


def _one(emotion: str, rng: np.random.Generator) -> NDArray[np.float64]:
    units = prototype(emotion, int(rng.integers(len(PROTOTYPES[emotion]))), int(rng.integers(2)))
    return units * rng.uniform(0.75, 1.15, (len(units), 1))
