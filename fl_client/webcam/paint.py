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
    region //= 4


def fill(canvas: Canvas, area: Area, colour: Colour) -> None:
    """Paint an area over."""
    _region(canvas, area)[:] = colour


def outline(canvas: Canvas, area: Area, colour: Colour, thickness: int) -> None:
    """A frame of `colour` between two thin dark ones."""
    corner = (area.x + area.width - 1, area.y + area.height - 1)
    cv2.rectangle(canvas, (area.x, area.y), corner, BLACK, thickness + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (area.x, area.y), corner, colour, thickness, cv2.LINE_AA)


def write(canvas: Canvas, text: str, x: int, y: int, size: int, colour: Colour) -> None:
    """One line of text whose top left corner is (x, y), `size` pixels to the em."""
    mask = _mask(text, size)
    rows, columns = mask.shape
    top, left = max(0, -y), max(0, -x)
    region = _region(canvas, Area(x, y, columns, rows))
    part = mask[top : top + region.shape[0], left : left + region.shape[1], None].astype(np.uint16)
    region[:] = (region * (255 - part) + np.asarray(colour, dtype=np.uint16) * part + 127) // 255


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
