"""From a network's many overlapping candidates to one box per face. The detectors `grid` and `blaze` share it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detector.detection import Detection, from_left_to_right

Floats = NDArray[np.float32]

STRIDE = 16
"""The networks take pictures whose sides are multiples of it."""

SAME_FACE = 0.3
"""Candidates that share more of their union than this are one face."""


@dataclass(frozen=True)
class Candidates:
    """N places where a network sees a face, in pixels of its input.

    Attributes:
        scores: (N,) in (0, 1].
        squares: (N, 3) x and y of the middle, side.
        points: (N, K, 2) key points, or None.
    """

    scores: Floats
    squares: Floats
    points: Floats | None = None


def reduced(picture: NDArray[np.uint8], longest: int) -> tuple[NDArray[np.uint8], float]:
    """The picture with its longer side at most `longest`, and how many times smaller it became.

    Halved by averaging as often as that fits, then bilinear: as free of aliasing as an area average, in a quarter of its time.
    """
    rows, columns = picture.shape[:2]
    factor = max(1.0, max(rows, columns) / longest)
    while max(picture.shape[:2]) >= 2 * longest and picture.shape[0] % 2 == 0 and picture.shape[1] % 2 == 0:
        half = (picture.shape[1] // 2, picture.shape[0] // 2)
        picture = np.asarray(cv2.resize(picture, half, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if max(picture.shape[:2]) > longest:
        to = (max(1, round(columns / factor)), max(1, round(rows / factor)))
        how = cv2.INTER_AREA if max(picture.shape[:2]) >= 2 * longest else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, to, interpolation=how), dtype=np.uint8)
    return picture, factor


def padded(picture: NDArray[np.uint8], stride: int = STRIDE) -> NDArray[np.uint8]:
    """The picture with sides that are multiples of `stride`: what is added, on the right and below, repeats its edge."""
    rows, columns = picture.shape[:2]
    down, right = -rows % stride, -columns % stride
    if not down and not right:
        return picture
    return np.asarray(cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)


def blended(found: Candidates, factor: float) -> list[Detection]:
    """One detection per face, in pixels of the frame, `factor` times the input's, from left to right.

    Candidates of one face are averaged by their scores (Bazarevsky et al. 2019, section 3.4), which trembles less from
    frame to frame than taking the best one.
    """
    order = np.argsort(-found.scores, kind="stable")
    detections = []
    while len(order):
        best = order[0]
        same = _overlaps(found.squares[best], found.squares[order]) > SAME_FACE
        same[0] = True
        mine = order[same]
        weights = found.scores[mine] / found.scores[mine].sum()
        x, y, side = (float(value) * factor for value in weights @ found.squares[mine])
        points = None
        if found.points is not None:
            mixed = np.tensordot(weights, found.points[mine], axes=1) * factor
            points = tuple((float(px), float(py)) for px, py in mixed)
        whole = max(1, round(side))
        box = (round(x - whole / 2), round(y - whole / 2), whole, whole)
        detections.append(Detection(box, float(found.scores[best]), points))
        order = order[~same]
    return from_left_to_right(detections)


def _overlaps(square: Floats, others: Floats) -> Floats:
    """Of one square with each of (N, 3): overlap, or half of the smaller one's part in the larger if that is more."""
    reach = (square[2] + others[:, 2]) / 2
    wide = np.clip(np.minimum(reach - np.abs(square[0] - others[:, 0]), np.minimum(square[2], others[:, 2])), 0, None)
    high = np.clip(np.minimum(reach - np.abs(square[1] - others[:, 1]), np.minimum(square[2], others[:, 2])), 0, None)
    shared = wide * high
    union = square[2] ** 2 + others[:, 2] ** 2 - shared
    within = shared / np.minimum(square[2], others[:, 2]) ** 2
    return np.asarray(np.maximum(shared / union, within / 2), dtype=np.float32)
