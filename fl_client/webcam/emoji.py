"""A small drawn face per emotion: the overlay sets one beside each label. No font with emoji is needed.

Every face is lines and ellipses on a unit disc, drawn once per size with Pillow at four times the size, then reduced.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from fl_client.webcam.paint import Colour, Layers, layers

OVERSAMPLING = 4
INK = (45, 38, 30)
SKIN: dict[str, Colour] = {
    "anger": (82, 98, 240),
    "disgust": (110, 205, 140),
    "fear": (240, 200, 190),
    "sadness": (245, 200, 130),
}
"""Blue, green, red of a face; yellow for the others."""

YELLOW: Colour = (70, 215, 255)
GREY: Colour = (205, 205, 205)


class _Pen:
    """Draws on a disc of radius 1 around (0, 0), x to the right and y down."""

    def __init__(self, side: int) -> None:
        self._scale = side / 2
        self.image = Image.new("RGBA", (side, side))
        self._draw = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, across: float, down: float, colour: tuple[int, ...] = INK) -> None:
        self._draw.ellipse(self._box(x, y, across, down), fill=colour)

    def arc(self, x: float, y: float, across: float, down: float, start: int, end: int, width: float = 0.13) -> None:
        """Part of an ellipse's edge, from `start` to `end` degrees clockwise from the right."""
        self._draw.arc(self._box(x, y, across, down), start, end, fill=INK, width=self._thick(width))

    def half(self, x: float, y: float, across: float, down: float, start: int, end: int, colour: tuple[int, ...]) -> None:
        self._draw.chord(self._box(x, y, across, down), start, end, fill=colour)

    def line(self, *points: tuple[float, float], width: float = 0.13) -> None:
        thick = self._thick(width)
        spots = [(self._scale * (1 + x), self._scale * (1 + y)) for x, y in points]
        self._draw.line(spots, fill=INK, width=thick, joint="curve")
        for x, y in (spots[0], spots[-1]):
            self._draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=INK)

    def eyes(self, down: float = 0.16, y: float = -0.2, across: float = 0.11) -> None:
        for x in (-0.36, 0.36):
            self.disc(x, y, across, down)

    def _thick(self, width: float) -> int:
        return max(1, round(width * self._scale))

    def _box(self, x: float, y: float, across: float, down: float) -> tuple[float, float, float, float]:
        s = self._scale
        return (s * (1 + x - across), s * (1 + y - down), s * (1 + x + across), s * (1 + y + down))


def _neutral(pen: _Pen) -> None:
    pen.eyes()
    pen.line((-0.4, 0.42), (0.4, 0.42))


def _happiness(pen: _Pen) -> None:
    for x in (-0.36, 0.36):
        pen.arc(x, -0.1, 0.17, 0.2, 180, 360)
    pen.half(0, 0.15, 0.55, 0.52, 0, 180, INK)
    pen.half(0, 0.15, 0.42, 0.16, 0, 180, (255, 255, 255))


def _surprise(pen: _Pen) -> None:
    pen.eyes(down=0.19, y=-0.16, across=0.14)
    pen.disc(0, 0.48, 0.2, 0.27)
    for x in (-0.38, 0.38):
        pen.arc(x, -0.48, 0.2, 0.14, 190, 350, width=0.09)


def _sadness(pen: _Pen) -> None:
    pen.eyes(down=0.13)
    pen.arc(0, 0.72, 0.38, 0.32, 200, 340)
    pen.line((-0.58, -0.38), (-0.28, -0.52), width=0.09)
    pen.line((0.58, -0.38), (0.28, -0.52), width=0.09)
    pen.disc(0.4, 0.2, 0.09, 0.14, (70, 130, 225))


def _anger(pen: _Pen) -> None:
    pen.eyes(down=0.12, y=-0.1)
    pen.line((-0.6, -0.48), (-0.18, -0.28))
    pen.line((0.6, -0.48), (0.18, -0.28))
    pen.arc(0, 0.68, 0.36, 0.26, 200, 340)


def _disgust(pen: _Pen) -> None:
    pen.line((-0.52, -0.3), (-0.22, -0.18), (-0.52, -0.06), width=0.1)
    pen.line((0.52, -0.3), (0.22, -0.18), (0.52, -0.06), width=0.1)
    pen.line((-0.42, 0.42), (-0.14, 0.32), (0.14, 0.44), (0.42, 0.34))
    pen.half(0.14, 0.4, 0.17, 0.36, 0, 180, (205, 70, 90))


def _fear(pen: _Pen) -> None:
    for x in (-0.36, 0.36):
        pen.disc(x, -0.16, 0.2, 0.22, (255, 255, 255))
        pen.disc(x, -0.16, 0.08, 0.1)
    pen.line((-0.6, -0.48), (-0.24, -0.6), width=0.09)
    pen.line((0.6, -0.48), (0.24, -0.6), width=0.09)
    pen.line((-0.42, 0.44), (-0.21, 0.32), (0, 0.46), (0.21, 0.32), (0.42, 0.44), width=0.11)


def _contempt(pen: _Pen) -> None:
    pen.line((-0.5, -0.2), (-0.22, -0.2))
    pen.disc(0.36, -0.2, 0.11, 0.14)
    pen.line((0.18, -0.46), (0.56, -0.52), width=0.09)
    pen.line((-0.34, 0.42), (0.1, 0.42), (0.42, 0.22))


def _unsure(pen: _Pen) -> None:
    pen.arc(0, -0.26, 0.3, 0.3, 180, 90, width=0.17)
    pen.line((0, 0.04), (0, 0.2), width=0.17)
    pen.disc(0, 0.52, 0.11, 0.11)


DRAWN: dict[str, Callable[[_Pen], None]] = {
    "neutral": _neutral,
    "happiness": _happiness,
    "surprise": _surprise,
    "sadness": _sadness,
    "anger": _anger,
    "disgust": _disgust,
    "fear": _fear,
    "contempt": _contempt,
}


@lru_cache(maxsize=256)
def emoji(label: str, side: int) -> Layers:
    """A round face of `side` pixels, to stamp; a grey question mark for `unsure` and for what has no face of its own."""
    pen = _Pen(OVERSAMPLING * side)
    skin = SKIN.get(label, YELLOW) if label in DRAWN else GREY
    pen.disc(0, 0, 0.98, 0.98, INK)
    pen.disc(0, 0, 0.9, 0.9, skin[::-1])
    DRAWN.get(label, _unsure)(pen)
    small = np.asarray(pen.image.resize((side, side), Image.Resampling.BOX), dtype=np.uint8)
    return layers(np.ascontiguousarray(small[:, :, 2::-1]), np.ascontiguousarray(small[:, :, 3]))
