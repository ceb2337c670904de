"""Curves in face units become pixels: the drawing board of `simulation.drawing`, which knows faces.

One unit is the distance between the pupils; the origin lies between the eyes, x to the picture's right, y down.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Curve = tuple[float, float, float, float, float, float, float, float]
"""A cubic Bezier curve: x0, y0 (start), x1, y1, x2, y2 (controls), x3, y3 (end)."""
Colour = tuple[float, float, float]
"""Blue, green, red in 0..255; a grey canvas receives its BT.601 luma."""

_SUBPIXEL_BITS = 4
_HEAD_WIDTH, _HEAD_HEIGHT, _HEAD_MIDDLE, _HEAD_DEPTH = 1.32, 2.3, 0.25, 0.95


class Layer(IntEnum):
    """What is painted where, from back to front."""

    BACK = 0
    HEAD = 1
    """Painted, and the mask of FACE and of all shading."""
    FACE = 2
    EYEBALL = 3
    """Painted, and the mask of IRIS."""
    IRIS = 4
    FEATURES = 5
    BROAD = 6
    """Shading with a wide blur; its strokes are brightness factors, as in the next two layers."""
    MIDDLE = 7
    FINE = 8
    FRONT = 9


@dataclass(frozen=True)
class View:
    """Where and how large a head appears.

    Attributes:
        x, y: pixel coordinates of the point between the eyes of a head that looks straight ahead.
        scale: pixels per face unit.
        yaw, pitch, roll: radians; positive yaw turns to the picture's right, positive pitch looks down, positive roll
            turns clockwise.
    """

    x: float
    y: float
    scale: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


def reverse(curve: Curve) -> Curve:
    """The same curve, walked from its end to its start."""
    x0, y0, x1, y1, x2, y2, x3, y3 = curve
    return (x3, y3, x2, y2, x1, y1, x0, y0)


def between(a: Curve, b: Curve, part: float) -> Curve:
    """The curve that lies `part` (0..1) of the way from `a` to `b`."""
    x0, y0, x1, y1, x2, y2, x3, y3 = (p + part * (q - p) for p, q in zip(a, b, strict=True))
    return (x0, y0, x1, y1, x2, y2, x3, y3)


def spindle(curve: Curve, width: float) -> tuple[Curve, Curve]:
    """A line of `width` in its middle that tapers to both ends, as a closed shape."""
    x0, y0, x1, y1, x2, y2, x3, y3 = curve
    dx, dy = x3 - x0, y3 - y0
    reach = width / 1.5 / (math.hypot(dx, dy) or 1.0)
    nx, ny = -dy * reach, dx * reach
    there = (x0, y0, x1 + nx, y1 + ny, x2 + nx, y2 + ny, x3, y3)
    back = (x3, y3, x2 - nx, y2 - ny, x1 - nx, y1 - ny, x0, y0)
    return there, back


def ellipse(x: float, y: float, rx: float, ry: float) -> tuple[Curve, ...]:
    """An ellipse as four curves."""
    kx, ky = rx * 0.5523, ry * 0.5523
    return (
        (x + rx, y, x + rx, y + ky, x + kx, y + ry, x, y + ry),
        (x, y + ry, x - kx, y + ry, x - rx, y + ky, x - rx, y),
        (x - rx, y, x - rx, y - ky, x - kx, y - ry, x, y - ry),
        (x, y - ry, x + kx, y - ry, x + rx, y - ky, x + rx, y),
    )


def smooth(points: list[tuple[float, float]]) -> list[Curve]:
    """The closed Catmull-Rom curve through `points`."""
    n = len(points)
    curves: list[Curve] = []
    for i, (x0, y0) in enumerate(points):
        (xa, ya), (x3, y3), (xb, yb) = points[i - 1], points[(i + 1) % n], points[(i + 2) % n]
        curves.append((x0, y0, x0 + (x3 - xa) / 6, y0 + (y3 - ya) / 6, x3 - (xb - x0) / 6, y3 - (yb - y0) / 6, x3, y3))
    return curves


@cache
def _bernstein(steps: int) -> NDArray[np.float64]:
    """(4, steps + 1) weights of the four control points along a curve."""
    t = np.linspace(0.0, 1.0, steps + 1)
    return np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])


class Sketch:
    """A head as filled shapes, collected first and painted once by `paint`."""

    def __init__(self) -> None:
        self._numbers: list[float] = []
        self._depths: list[tuple[int, float, float]] = []
        self._shapes: tuple[list[tuple[int, int, int, Colour | float]], ...] = tuple([] for _ in Layer)

    def fill(
        self,
        layer: Layer,
        colour: Colour | float,
        *curves: Curve,
        bulge: float = 1.0,
        lift: float = 0.0,
        hole: tuple[Curve, ...] = (),
    ) -> None:
        """Add a closed shape.

        Args:
            layer: where it is painted.
            colour: a colour, or in the shading layers a brightness factor in 0..2.
            curves: its outline, each curve starting where the last one ended.
            bulge: 1 where it lies on the front of the head, 0 in the plane of the ears.
            lift: how far it stands out from there, in face units.
            hole: the outline of what is left out of it.
        """
        start = len(self._numbers) // 8
        for curve in (*curves, *hole):
            self._numbers += curve
        middle = start + len(curves)
        self._depths.append((len(curves) + len(hole), bulge, lift))
        self._shapes[layer].append((start, middle, middle + len(hole), colour))

    def paint(self, canvas: NDArray[np.uint8], view: View, *, steps: int = 7) -> None:
        """Paint the head onto `canvas`, (H, W) grey or (H, W, 3) BGR, in place; each curve becomes `steps` + 1 points."""
        points = self._project(view, steps)
        self._fill(canvas, Layer.BACK, points)
        self._fill(canvas, Layer.HEAD, points)
        self._fill(canvas, Layer.FACE, points)
        self._fill(canvas, Layer.EYEBALL, points)
        irises = canvas.copy()
        self._fill(irises, Layer.IRIS, points)
        cv2.copyTo(irises, self._mask(canvas, Layer.EYEBALL, points), canvas)
        self._fill(canvas, Layer.FEATURES, points)
        self._shade(canvas, points, view.scale)
        self._fill(canvas, Layer.FRONT, points)

    def _project(self, view: View, steps: int) -> NDArray[np.int32]:
        """All curves as (curves, steps + 1, 2) fixed-point pixels, after the head's turn, without perspective."""
        numbers = np.fromiter(self._numbers, np.float64, len(self._numbers)).reshape(-1, 4, 2)
        basis = _bernstein(steps)
        x, y = numbers[:, :, 0] @ basis, numbers[:, :, 1] @ basis
        depths = np.array(self._depths)
        depths = np.repeat(depths[:, 1:], depths[:, 0].astype(np.intp), axis=0)
        z = x * x
        z *= -1 / _HEAD_WIDTH**2
        z -= np.square(y * (1 / _HEAD_HEIGHT) - _HEAD_MIDDLE / _HEAD_HEIGHT)
        z += 1.0
        np.maximum(z, 0.0, out=z)
        np.sqrt(z, out=z)
        z *= depths[:, :1] * _HEAD_DEPTH
        z += depths[:, 1:]
        x, z = x * math.cos(view.yaw) + z * math.sin(view.yaw), z * math.cos(view.yaw) - x * math.sin(view.yaw)
        y = y * math.cos(view.pitch) + z * math.sin(view.pitch)
        fixed = 1 << _SUBPIXEL_BITS
        cos, sin = fixed * view.scale * math.cos(view.roll), fixed * view.scale * math.sin(view.roll)
        pixels = np.empty((*x.shape, 2), np.int32)
        pixels[..., 0] = x * cos - y * sin + (fixed * view.x + 0.5)
        pixels[..., 1] = x * sin + y * cos + (fixed * view.y + 0.5)
        return pixels

    def _fill(self, canvas: NDArray[np.uint8], layer: Layer, points: NDArray[np.int32]) -> None:
        grey = canvas.ndim == 2
        line = cv2.LINE_8 if layer in (Layer.BROAD, Layer.MIDDLE) else cv2.LINE_AA
        for start, middle, stop, colour in self._shapes[layer]:
            rings = [points[start:middle].reshape(-1, 2)]
            if stop > middle:
                rings.append(points[middle:stop].reshape(-1, 2))
            if isinstance(colour, float):
                ink: tuple[float, ...] = (128 * colour,)
            elif grey:
                ink = (0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2],)
            else:
                ink = colour
            cv2.fillPoly(canvas, rings, ink, line, _SUBPIXEL_BITS)

    def _mask(self, canvas: NDArray[np.uint8], layer: Layer, points: NDArray[np.int32]) -> NDArray[np.uint8]:
        mask = np.zeros(canvas.shape[:2], np.uint8)
        for start, middle, _, _ in self._shapes[layer]:
            cv2.fillPoly(mask, [points[start:middle].reshape(-1, 2)], (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
        return mask

    def _shade(self, canvas: NDArray[np.uint8], points: NDArray[np.int32], scale: float) -> None:
        """Multiply the head by its three shading layers (128 is neutral); the blurred two are computed at half size."""
        rows, columns = canvas.shape[:2]
        shade = np.full((rows // 2, columns // 2), 128, np.uint8)
        for layer, sigma in ((Layer.BROAD, 0.06), (Layer.MIDDLE, 0.023)):
            plane = np.full((rows // 2, columns // 2), 128, np.uint8)
            self._fill(plane, layer, points >> 1)
            shade = cv2.multiply(shade, _blur(plane, sigma * scale), scale=1 / 128)
        shade = cv2.resize(shade, (columns, rows))
        fine = np.full((rows, columns), 128, np.uint8)
        self._fill(fine, Layer.FINE, points)
        shade = cv2.multiply(shade, _blur(fine, 0.014 * scale), scale=1 / 128)
        if canvas.ndim == 3:
            shade = cv2.merge([shade] * 3)
        shaded = cv2.multiply(canvas, shade, scale=1 / 128)
        cv2.copyTo(shaded, self._mask(canvas, Layer.HEAD, points), canvas)


def _blur(plane: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Nearly Gaussian: a triangle of radius r has the variance r (r + 2) / 6."""
    side = 2 * max(round(math.sqrt(6 * sigma * sigma + 1)) - 1, 1) + 1
    return np.asarray(cv2.stackBlur(plane, (side, side)), dtype=np.uint8)
