"""What a detector says of one face, and the geometry of boxes. Detectors make it; tracking, capture and REST read it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.preprocess import Box

Point = tuple[float, float]
"""x, y in pixels of the frame."""


@dataclass(frozen=True)
class Detection:
    """A face in a frame.

    Attributes:
        box: a square in pixels of the frame, framed as a training crop is: from the brows to below the lips, cheek to
            cheek, as in FER2013. It goes into `Preprocessing.crop` as it is, and may reach beyond the frame.
        score: how sure the detector is, in (0, 1]; not a probability. 1 where a detector gives none.
        keypoints: right eye, left eye, nose tip, mouth, right ear, left ear (the person's own right and left), or None
            where a detector gives none.
    """

    box: Box
    score: float
    keypoints: tuple[Point, ...] | None = None


def from_left_to_right(detections: Iterable[Detection]) -> list[Detection]:
    """Ordered by their boxes' left edges."""
    return sorted(detections, key=lambda detection: detection.box)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union, in [0, 1]."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def without_doubles(detections: Iterable[Detection], most: float = 0.3) -> list[Detection]:
    """The surest detection of each face: whatever overlaps a surer one by more than `most`, or whose centre lies in it, goes."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if not any(overlap(detection.box, other.box) > most or _inside(detection.box, other.box) for other in kept):
            kept.append(detection)
    return kept


def _inside(box: Box, other: Sequence[int]) -> bool:
    """Whether the centre of `box` lies in the middle half of `other`."""
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    left, top = other[0] + other[2] / 4, other[1] + other[3] / 4
    return left < x < left + other[2] / 2 and top < y < top + other[3] / 2
