"""From a frame to the one face that may be stored: found, cut out, judged. `Studio` and the import call it.

What is stored is the square that the camera loop's crop is made of, grey and in the frame's own pixels, without anything around
it: read back by `models.faces.folder`, it becomes the very pixels that the loop would give the model, whatever the model's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from models.detector.detection import Detection
from models.faces.crop import Box, crop_face, face_square
from models.faces.quality import ALIKE, COPIED, Flaw, flaw_of

SECOND_FACE = 0.5
"""A second face whose side is more than this part of the largest one's is another person in view; smaller ones are
passers-by or the detector's mistakes."""


class Fault(StrEnum):
    """Why no picture is taken now; the value is what the person can do about it."""

    NO_FACE = "no face in view: look into the camera"
    SEVERAL = "more than one face in view: one person at a time"
    SMALL = "too far away: come closer"
    DARK = "too dark: turn to the light"
    BRIGHT = "too bright: less light, please"
    FLAT = "too little contrast: find better light"
    BLURRED = "blurred: hold still for a moment"
    SAME = "as before: turn your head a little, or look anew"
    ELSEWHERE = "as under another emotion: make the face anew"


_OF_FLAW = {
    Flaw.SMALL: Fault.SMALL,
    Flaw.DARK: Fault.DARK,
    Flaw.BRIGHT: Fault.BRIGHT,
    Flaw.FLAT: Fault.FLAT,
    Flaw.BLURRED: Fault.BLURRED,
}


@dataclass(frozen=True)
class Cut:
    """A face cut out of a frame.

    Attributes:
        detection: where it was found.
        square: (side, side) uint8 grey, as it would be stored.
    """

    detection: Detection
    square: NDArray[np.uint8]

    @property
    def flaw(self) -> Fault | None:
        """What is wrong with it by itself, if anything."""
        side = len(self.square)
        flaw = flaw_of(self.square, side, side)
        return None if flaw is None else _OF_FLAW[flaw]


def cut_out(picture: NDArray[np.uint8], detection: Detection, margin: float) -> Cut:
    """(H, W[, 3]) uint8 and a face in it -> its square, whose side is that of the box widened by `margin` on each side."""
    side = face_square(detection.box, margin)[2]
    return Cut(detection, crop_face(picture, detection.box, side, margin))


def the_one_face(detections: Sequence[Detection]) -> Detection | Fault:
    """The largest face, or why there is not one alone."""
    by_side = sorted(detections, key=lambda detection: -_side(detection.box))
    if not by_side:
        return Fault.NO_FACE
    if len(by_side) > 1 and _side(by_side[1].box) > SECOND_FACE * _side(by_side[0].box):
        return Fault.SEVERAL
    return by_side[0]


def fault_of(cut: Cut, nearest: int = 128, elsewhere: int = 128) -> Fault | None:
    """Why a face is not stored, if it is not.

    Args:
        nearest: bits to the most similar stored face of the same emotion.
        elsewhere: bits to the most similar one of the other emotions; one picture under two emotions teaches nothing.
    """
    if (flaw := cut.flaw) is not None:
        return flaw
    if nearest <= ALIKE:
        return Fault.SAME
    return Fault.ELSEWHERE if elsewhere <= COPIED else None


def _side(box: Box) -> int:
    return max(box[2], box[3])
