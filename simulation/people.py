"""Who is drawn: the lasting looks of one made-up person, for `simulation.drawing`.

A person's looks follow from a seed and a number alone, so the same person can be drawn again in any picture.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulation.sketch import Colour

Hair = Literal["short", "parted", "fringe", "long", "curly", "bald"]
Beard = Literal["none", "stubble", "moustache", "goatee", "full"]
Glasses = Literal["none", "round", "square"]

_SKIN: tuple[Colour, ...] = ((182, 202, 234), (158, 184, 222), (128, 158, 205), (88, 122, 172), (56, 80, 124))
_HAIR: tuple[Colour, ...] = ((24, 22, 26), (36, 44, 62), (50, 76, 112), (104, 150, 190), (44, 70, 138), (165, 168, 170))
_IRIS: tuple[Colour, ...] = ((30, 44, 70), (40, 60, 92), (120, 104, 76), (88, 110, 84))
_SHIRT: tuple[Colour, ...] = ((150, 96, 60), (70, 70, 170), (80, 130, 90), (90, 90, 90), (200, 200, 205), (60, 45, 40))


@dataclass(frozen=True)
class Person:
    """Lengths in face units (see `simulation.sketch`), colours in BGR.

    Attributes:
        width: half the head's width at the cheeks; jaw: the jaw's share of it; chin: from the eyes down to the chin.
        eye_x, eye_width, eye_open, eye_tilt: where an eye lies, half its width, its height, its outer corner's rise.
        brow_y, brow_thick, brow_slope, brow_arch: height (negative is up), thickness, how far the inner end hangs, bend.
        nose_width, nose_y: half the width of the nose, where it ends.
        mouth_width, mouth_y, mouth_curve, lip_upper, lip_lower: half width, height, how far the corners hang at rest.
        fold, lines: how deep the folds beside the mouth and other lines are at rest, in 0..1.
        hairline: height of the hair's edge at the left, middle and right (negative is up).
    """

    width: float
    jaw: float
    chin: float
    eye_x: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    brow_y: float
    brow_thick: float
    brow_slope: float
    brow_arch: float
    nose_width: float
    nose_y: float
    mouth_width: float
    mouth_y: float
    mouth_curve: float
    lip_upper: float
    lip_lower: float
    fold: float
    lines: float
    hairline: tuple[float, float, float]
    hair_width: float
    hair: Hair
    beard: Beard
    glasses: Glasses
    skin: Colour
    hair_colour: Colour
    brow_colour: Colour
    iris: Colour
    lips: Colour
    shirt: Colour


def mix(a: Colour, b: Colour, part: float) -> Colour:
    """The colour `part` (0..1) of the way from `a` to `b`."""
    return (a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1]), a[2] + part * (b[2] - a[2]))


def scaled(colour: Colour, factor: float) -> Colour:
    """`colour`, brighter (above 1) or darker; may exceed 255, which painting cuts off."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def draw_person(seed: int, number: int) -> Person:
    """The looks of person `number` of the world `seed`: the same numbers always give the same person."""
    rng = np.random.default_rng([seed, 1, number])
    beardless = bool(rng.random() < 0.55)
    hairs: tuple[Hair, ...] = ("short", "parted", "fringe", "long", "curly", "bald")
    hair = hairs[rng.choice(6, p=(0.18, 0.2, 0.2, 0.3, 0.12, 0.0) if beardless else (0.4, 0.22, 0.1, 0.05, 0.1, 0.13))]
    beards: tuple[Beard, ...] = ("none", "stubble", "moustache", "goatee", "full")
    beard = "none" if beardless else beards[rng.choice(5, p=(0.4, 0.25, 0.1, 0.1, 0.15))]
    glasses: Glasses = ("none", "round", "square")[rng.choice(3, p=(0.8, 0.1, 0.1))]
    tone = rng.random() * (len(_SKIN) - 1)
    skin = mix(_SKIN[int(tone)], _SKIN[int(tone) + 1], tone % 1)
    dark_skin = tone > 2.5
    hair_colour = _HAIR[rng.integers(2 if dark_skin else len(_HAIR))]
    edge = {"bald": -1.6, "fringe": -0.62}.get(hair, -1.02) + rng.normal(0, 0.07)
    part = rng.normal(0, 0.14) if hair in ("parted", "long") else rng.normal(0, 0.03)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    lipstick = beardless and rng.random() < 0.35
    lips = mix(skin, (70, 60, 170), 0.6) if lipstick else mix(skin, (85, 85, 165), between(0.2, 0.4))
    return Person(
        width=between(1.0, 1.16),
        jaw=between(0.72, 0.84) if beardless else between(0.78, 0.92),
        chin=between(1.68, 1.88),
        eye_x=between(0.47, 0.52),
        eye_width=between(0.205, 0.25),
        eye_open=between(0.105, 0.155),
        eye_tilt=between(-0.02, 0.045),
        brow_y=between(-0.4, -0.31),
        brow_thick=between(0.05, 0.085) if beardless else between(0.075, 0.12),
        brow_slope=between(-0.035, 0.035),
        brow_arch=between(0.02, 0.09),
        nose_width=between(0.16, 0.23),
        nose_y=between(0.66, 0.76),
        mouth_width=between(0.34, 0.43),
        mouth_y=between(1.07, 1.17),
        mouth_curve=between(-0.03, 0.03),
        lip_upper=between(0.05, 0.09),
        lip_lower=between(0.07, 0.12),
        fold=between(0.0, 0.4),
        lines=between(0.0, 0.35),
        hairline=(edge + part, edge, edge - part),
        hair_width=between(1.06, 1.18),
        hair=hair,
        beard=beard,
        glasses=glasses,
        skin=skin,
        hair_colour=scaled(hair_colour, between(0.8, 1.15)),
        brow_colour=mix(scaled(hair_colour, 0.8), skin, between(0.05, 0.3)),
        iris=_IRIS[rng.integers(2 if dark_skin else len(_IRIS))],
        lips=lips,
        shirt=scaled(_SHIRT[rng.integers(len(_SHIRT))], between(0.8, 1.1)),
    )
