"""Text, panels and outlines on a frame, readable on bright and on dark ones. `overlay.py` decides what goes where."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
"""Blue, green, red, each 0 to 255."""

Canvas = NDArray[np.uint8]
"""(H, W, 3) uint8 blue-green-red, painted in place."""

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
SMALLEST_TEXT = 8
MOST_GLOW = 140
"""Of 255: how much of the picture a map covers where it is strongest."""


Layers = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A picture that lets through what is under it, (h, w, 3) uint8 each: how much of the canvas stays, of 255, and what is added."""


class Area(NamedTuple):
    """A rectangle in pixels; it may reach beyond the canvas, where nothing is painted."""

    x: int
    y: int
    width: int
    height: int

    def inside(self, columns: int, rows: int) -> "Area":
        """The same size, moved so that as much of it as fits lies within (columns, rows)."""
        x = max(0, min(self.x, columns - self.width))
        y = max(0, min(self.y, rows - self.height))
        return Area(x, y, self.width, self.height)

    def overlaps(self, other: "Area") -> bool:
        """Whether a pixel lies in both."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def shade(canvas: Canvas, area: Area) -> None:
    """Darken an area to a quarter, so that white text stands out on it whatever the frame shows."""
    region = _region(canvas, area)
    region >>= 2


def fill(canvas: Canvas, area: Area, colour: Colour) -> None:
    """Paint an area over."""
    if area.width > 0 and area.height > 0:
        cv2.rectangle(canvas, area[:2], (area.x + area.width - 1, area.y + area.height - 1), colour, cv2.FILLED)


def outline(canvas: Canvas, area: Area, colour: Colour, thickness: int) -> None:
    """A frame of `colour` between two thin dark ones, its middle on the area's edge."""
    half = thickness // 2
    for grown, thick, shade_of in ((half + 1, thickness + 2, BLACK), (half, thickness, colour)):
        x, y = area.x - grown, area.y - grown
        width, height = area.width + 2 * grown, area.height + 2 * grown
        fill(canvas, Area(x, y, width, thick), shade_of)
        fill(canvas, Area(x, y + height - thick, width, thick), shade_of)
        fill(canvas, Area(x, y, thick, height), shade_of)
        fill(canvas, Area(x + width - thick, y, thick, height), shade_of)


def write(canvas: Canvas, text: str, x: int, y: int, size: int, colour: Colour) -> None:
    """One line of text whose top left corner is (x, y), `size` pixels to the em.

    White only ever lightens and black only darkens what is there, which is quicker than to blend.
    """
    sprite = _lettering(text, size, colour)
    region, part = _meeting(canvas, sprite, x, y)
    if not region.size:
        return
    if colour == WHITE:
        cv2.max(region, sprite[1][part], dst=region)
    elif colour == BLACK:
        cv2.min(region, sprite[0][part], dst=region)
    else:
        _lay(canvas, sprite, x, y)


def stamp(canvas: Canvas, sprite: Layers, x: int, y: int) -> None:
    """A small picture whose top left corner is (x, y)."""
    _lay(canvas, sprite, x, y)


def glow(canvas: Canvas, values: NDArray[np.float32], area: Area) -> None:
    """Lay a map over an area: (h, w) float32 of any scale; the higher the warmer, and nothing where it is 0 or less."""
    most = float(values.max(initial=0.0))
    if not (most > 0 and np.isfinite(most)) or area.width < 1 or area.height < 1:
        return
    strength = np.clip(values / most, 0.0, 1.0).astype(np.float32)
    strength = np.asarray(cv2.resize(strength, (area.width, area.height), interpolation=cv2.INTER_LINEAR))
    level = np.asarray(255 * strength, dtype=np.uint8)
    warm = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), dtype=np.uint8)
    alpha = np.asarray(cv2.convertScaleAbs(level, alpha=MOST_GLOW / 255), dtype=np.uint8)
    _lay(canvas, layers(warm, alpha), area.x, area.y)


def text_width(text: str, size: int) -> int:
    """In pixels."""
    return int(_mask(text, size).shape[1])


def line_height(size: int) -> int:
    """In pixels, the same for every text of that size."""
    ascent, descent = _font(size).getmetrics()
    return int(ascent + descent)


def fitted(text: str, size: int, width: int) -> tuple[str, int]:
    """The text and size that fit into `width` pixels: smaller letters first, then fewer."""
    while size > SMALLEST_TEXT and text_width(text, size) > width:
        size -= 1
    if text_width(text, size) <= width:
        return text, size
    kept = text
    while kept and text_width(kept + "...", size) > width:
        kept = kept[:-1]
    return (kept + "..." if kept else ""), size


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out more on `colour`."""
    blue, green, red = colour
    return BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else WHITE


def layers(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> Layers:
    """From a (h, w, 3) uint8 picture and its (h, w) uint8 opacity."""
    if not alpha.size:
        return colours, colours
    opacity = cv2.merge([alpha, alpha, alpha])
    added = np.asarray(cv2.multiply(colours, opacity, scale=1 / 255), dtype=np.uint8)
    return np.asarray(cv2.bitwise_not(opacity), dtype=np.uint8), added


def _lay(canvas: Canvas, sprite: Layers, x: int, y: int) -> None:
    region, part = _meeting(canvas, sprite, x, y)
    if region.size:
        region[:] = cv2.add(cv2.multiply(region, sprite[0][part], scale=1 / 255), sprite[1][part])


def _meeting(canvas: Canvas, sprite: Layers, x: int, y: int) -> tuple[Canvas, tuple[slice, slice]]:
    """Where canvas and sprite meet: that part of the canvas, and where it lies in the sprite."""
    rows, columns = sprite[0].shape[:2]
    top, left = max(0, -y), max(0, -x)
    region = _region(canvas, Area(x, y, columns, rows))
    return region, np.s_[top : top + region.shape[0], left : left + region.shape[1]]


@lru_cache(maxsize=2048)
def _lettering(text: str, size: int, colour: Colour) -> Layers:
    mask = _mask(text, size)
    return layers(np.full((*mask.shape, 3), colour, dtype=np.uint8), mask)


def _region(canvas: Canvas, area: Area) -> Canvas:
    rows, columns = canvas.shape[:2]
    ys = slice(max(0, min(area.y, rows)), max(0, min(area.y + area.height, rows)))
    xs = slice(max(0, min(area.x, columns)), max(0, min(area.x + area.width, columns)))
    return canvas[ys, xs]


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("This Pillow was built without FreeType.")
    return font


@lru_cache(maxsize=2048)
def _mask(text: str, size: int) -> NDArray[np.uint8]:
    font = _font(size)
    width = max(0, round(font.getlength(text)))
    picture = Image.new("L", (width, line_height(size)))
    if width:
        ImageDraw.Draw(picture).text((0, 0), text, fill=255, font=font)
    mask = np.asarray(picture, dtype=np.uint8)
    mask.setflags(write=False)
    return mask
