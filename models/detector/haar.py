"""OpenCV's Haar cascade as a detector: slower and blinder than the others, but in every OpenCV 4.x wheel.

`detector.make_detector` builds it, by name or where nothing better runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import DependencyError
from models.detector.detection import Detection, from_left_to_right
from models.preprocess import Box

LONGEST_SIDE = 320


class HaarDetector:
    """The frontal-face cascade `alt2`, on an equalised grey picture of reduced size.

    Its boxes need no correction: for FER2013 faces pasted into larger pictures they are, at the median, 0.93 to 1.08
    times as wide as the pasted crop, and centred on it within 2 % of its side. The cascade gives no score: it is 1.
    """

    name = "haar"

    def __init__(self, size: int | None = None, smallest_face: int = 24) -> None:
        """Load the cascade.

        Args:
            size: pictures are reduced to this many pixels on their longer side before the search (320); more finds
                smaller faces, slower.
            smallest_face: in pixels of the reduced picture.

        Raises:
            DependencyError: this OpenCV carries no cascades.
        """
        self._longest_side, self._smallest_face = size or LONGEST_SIDE, smallest_face
        self._cascade = open_cascade()

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        scale = min(1.0, self._longest_side / max(grey.shape))
        if scale < 1.0:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest = (self._smallest_face, self._smallest_face)
        found = self._cascade.detectMultiScale(cv2.equalizeHist(grey), scaleFactor=1.1, minNeighbors=3, minSize=smallest)
        return from_left_to_right(Detection(_scaled(box, 1 / scale), 1.0) for box in found)


def open_cascade() -> Any:
    """OpenCV's frontal-face cascade `alt2`.

    Raises:
        DependencyError: this OpenCV carries no cascades.
    """
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    cascade = Path(folder or "") / "haarcascade_frontalface_alt2.xml"
    if folder is None or not hasattr(cv2, "CascadeClassifier") or not cascade.is_file():
        raise DependencyError(
            f"OpenCV {cv2.__version__} carries no Haar cascades, which the detector 'haar' needs; "
            'install a 4.x wheel: pip install "opencv-python-headless>=4.14,<5".'
        )
    return cv2.CascadeClassifier(str(cascade))


def _scaled(box: Sequence[int], factor: float) -> Box:
    x, y, width, height = (round(float(value) * factor) for value in box)
    return x, y, width, height
