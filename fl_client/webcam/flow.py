"""How faces moved between two frames, by sparse optical flow (Lucas and Kanade 1981, pyramidal as in Bouguet 2001).

`tracking.Tracker` calls it on the frames between two detections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detector.detection import Point
from models.preprocess import Box

ExactBox = tuple[float, float, float, float]
"""x, y, width, height in pixels of the frame, not rounded."""

WIDTH = 160
"""Pictures are reduced to this many pixels on their longer side: positions are found to a small part of a pixel anyway."""

GRID = 5
LEAST_POINTS = 8
LARGEST_ERROR = 20.0
"""Mean difference of grey levels around a point, above which it was not found again."""

STRAYED = 0.2
"""A point whose way differs from the others' by this part of the box's side is left out."""

_STEPS = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID * 0.8 + 0.1
_POINTS = np.stack(np.meshgrid(_STEPS, _STEPS), axis=-1).reshape(-1, 2).astype(np.float32)
"""(N, 2) in parts of the box, over its inner part."""


@dataclass(frozen=True)
class Motion:
    """Scale about `pivot`, then move.

    Attributes:
        pivot: x, y in pixels of the frame, where it was before.
        scale: how much larger it became.
        shift: x, y in pixels of the frame.
    """

    pivot: Point
    scale: float
    shift: Point

    def point(self, before: Point) -> Point:
        """Where a point of the frame before is now."""
        (px, py), (dx, dy) = self.pivot, self.shift
        return px + dx + self.scale * (before[0] - px), py + dy + self.scale * (before[1] - py)

    def box(self, before: ExactBox) -> ExactBox:
        """Where a box of the frame before is now, still as square as it was."""
        x, y, width, height = before
        centre = self.point((x + width / 2, y + height / 2))
        wide, high = self.scale * width, self.scale * height
        return centre[0] - wide / 2, centre[1] - high / 2, wide, high


class FlowFollower:
    """Holds the frame before, reduced and grey."""

    def __init__(self) -> None:
        self._before: NDArray[np.uint8] | None = None
        self._now: NDArray[np.uint8] | None = None

    def remember(self, picture: NDArray[np.uint8], boxes: Sequence[Box]) -> None:
        """This frame is the one before the next `motions`; without boxes there will be nothing to follow."""
        self._before = (_reduced(picture) if self._now is None else self._now) if boxes else None
        self._now = None

    def motions(self, picture: NDArray[np.uint8], boxes: Sequence[Box]) -> list[Motion | None]:
        """How each box of the frame before moved; None where the picture lost it."""
        self._now = _reduced(picture)
        before = self._before
        if before is None or before.shape != self._now.shape or not boxes:
            return [None] * len(boxes)
        factor = picture.shape[1] / before.shape[1]
        starts = [_points(box, factor, before.shape) for box in boxes]
        points = np.concatenate(starts)
        if not len(points):
            return [None] * len(boxes)
        flow: Any = cv2.calcOpticalFlowPyrLK
        ends, found, error = flow(before, self._now, points[:, None], None, winSize=(9, 9), maxLevel=2, criteria=(3, 8, 0.05))
        good = (found[:, 0] == 1) & (error[:, 0] < LARGEST_ERROR)
        motions, first = [], 0
        for start, box in zip(starts, boxes, strict=True):
            part = slice(first, first + len(start))
            first += len(start)
            motions.append(_motion(start[good[part]], ends[part, 0][good[part]], factor, STRAYED * box[2] / factor))
        return motions


def _reduced(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every so-manieth pixel of the green channel, then averaged down to `WIDTH`: a tenth of the time of a true reduction."""
    step = max(1, max(picture.shape[:2]) // (2 * WIDTH))
    green = np.ascontiguousarray(picture[::step, ::step, 1] if picture.ndim == 3 else picture[::step, ::step])
    scale = WIDTH / max(green.shape)
    if scale >= 1:
        return green
    to = (max(1, round(green.shape[1] * scale)), max(1, round(green.shape[0] * scale)))
    return np.asarray(cv2.resize(green, to, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _points(box: Box, factor: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(N, 2) points spread over the inner part of `box`, in pixels of the reduced picture, inside it."""
    x, y, width, height = (value / factor for value in box)
    points = _POINTS * np.array((width, height), dtype=np.float32) + np.array((x, y), dtype=np.float32)
    if x >= 0 and y >= 0 and x + width < shape[1] and y + height < shape[0]:
        return points
    inside = (points >= 0).all(1) & (points[:, 0] < shape[1]) & (points[:, 1] < shape[0])
    return points[inside]


def _motion(start: NDArray[np.float32], end: NDArray[np.float32], factor: float, strayed: float) -> Motion | None:
    """The median way of the points, which a few lost ones do not move, and the growth that fits those best that went along."""
    if len(start) < LEAST_POINTS:
        return None
    ways = end - start
    way = np.sort(ways, axis=0)[len(ways) // 2]
    along = np.abs(ways - way).max(1) < strayed
    start, end = start[along], end[along]
    if len(start) < LEAST_POINTS:
        return None
    middle, landed = start.sum(0) / len(start), end.sum(0) / len(end)
    spread = start - middle
    scale = min(1.25, max(0.8, float((spread * (end - landed)).sum() / max(1e-6, float((spread * spread).sum())))))
    return Motion(
        (float(middle[0]) * factor, float(middle[1]) * factor),
        scale,
        (float(landed[0] - middle[0]) * factor, float(landed[1] - middle[1]) * factor),
    )
