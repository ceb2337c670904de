"""Looks a second time, enlarged and by other means, at places where the detector `grid` is in doubt.

OpenCV's Haar cascade learnt from photographs, `grid` from composed scenes: what both see is hardly ever no face. On a square of
45 pixels the cascade costs a hundredth of what it costs on a frame.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detector.haar import open_cascade
from models.preprocess import Box

SIDE = 28
"""Pixels to which the box is scaled; the cascade's own window has 20."""

AROUND = 1.6
"""Side of what is looked at, in sides of the box: the box may be a little off."""

SMALLEST, LARGEST = 20, round(1.4 * SIDE)

NEAR = 0.55
"""A face whose middle lies further from the box's than this part of its side is another one."""


class SecondLook:
    """Looks for a face of about a box's size in and around it."""

    def __init__(self) -> None:
        """Raises: DependencyError: this OpenCV carries no cascades."""
        self._cascade = open_cascade()

    def confirmed(self, grey: NDArray[np.uint8], box: Box) -> Box | None:
        """Where the cascade sees the face, which is nearer to where it is; None if it sees none.

        Args:
            grey: (H, W) uint8, the whole frame.
            box: a square that may reach beyond it.
        """
        x, y, side, _ = box
        reach = max(1, round((AROUND - 1) / 2 * side))
        left, top, right, bottom = x - reach, y - reach, x + side + reach, y + side + reach
        rows, columns = grey.shape
        if right <= 0 or bottom <= 0 or left >= columns or top >= rows:
            return None
        seen = grey[max(0, top) : bottom, max(0, left) : right]
        beyond = max(0, -top), max(0, bottom - rows), max(0, -left), max(0, right - columns)
        if any(beyond):
            seen = np.asarray(cv2.copyMakeBorder(seen, *beyond, cv2.BORDER_REPLICATE), dtype=np.uint8)
        to = round(AROUND * SIDE)
        scale = seen.shape[0] / to
        how = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
        small = cv2.equalizeHist(cv2.resize(seen, (to, to), interpolation=how))
        sizes = {"minSize": (SMALLEST, SMALLEST), "maxSize": (LARGEST, LARGEST)}
        found = self._cascade.detectMultiScale(small, scaleFactor=1.2, minNeighbors=1, **sizes)
        away = [max(abs(a + c / 2 - to / 2), abs(b + c / 2 - to / 2)) * scale for a, b, c, _ in found]
        if not away or min(away) > NEAR * side:
            return None
        a, b, c, _ = (float(value) for value in found[away.index(min(away))])
        whole = round(c * scale)
        return round(left + a * scale), round(top + b * scale), whole, whole
