"""Finds faces in a frame: detectors by name behind one small protocol.

The loop calls `detect` once per frame; a better detector is one more entry of `DETECTORS`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DependencyError
from models.preprocess import Box


class Detector(Protocol):
    """Finds faces.

    Its boxes follow one convention, that of the training crops: a square from the brows to below the lips, cheek to
    cheek, as in FER2013, so that `Preprocessing.crop` of a box looks like what the model was trained on.
    """

    name: str

    def detect(self, picture: NDArray[np.uint8]) -> list[Box]:
        """(H, W, 3) uint8 blue-green-red -> boxes in its pixels, from left to right."""
        ...


class HaarDetector:
    """OpenCV's frontal-face cascade `alt2`, which its 4.x wheels carry, on an equalised grey picture of reduced size.

    Its boxes need no correction: for FER2013 faces pasted into larger pictures they are, at the median, 0.93 to 1.08
    times as wide as the pasted crop, and centred on it within 2 % of its side.
    """

    name = "haar"

    def __init__(self, longest_side: int = 320, smallest_face: int = 24) -> None:
        """Load the cascade.

        Args:
            longest_side: pictures are reduced to this many pixels before the search; more finds smaller faces, slower.
            smallest_face: in pixels of the reduced picture.

        Raises:
            DependencyError: this OpenCV carries no cascades.
        """
        self._longest_side, self._smallest_face = longest_side, smallest_face
        folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
        cascade = Path(folder or "") / "haarcascade_frontalface_alt2.xml"
        if folder is None or not hasattr(cv2, "CascadeClassifier") or not cascade.is_file():
            raise DependencyError(
                f"OpenCV {cv2.__version__} carries no Haar cascades, which the detector 'haar' needs; "
                'install a 4.x wheel: pip install "opencv-python-headless>=4.14,<5".'
            )
        self._cascade = cv2.CascadeClassifier(str(cascade))

    def detect(self, picture: NDArray[np.uint8]) -> list[Box]:
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        scale = min(1.0, self._longest_side / max(grey.shape))
        if scale < 1.0:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest = (self._smallest_face, self._smallest_face)
        found = self._cascade.detectMultiScale(cv2.equalizeHist(grey), scaleFactor=1.1, minNeighbors=3, minSize=smallest)
        boxes = [_scaled(box, 1 / scale) for box in found]
        return sorted(boxes)


DETECTORS: dict[str, Callable[..., Detector]] = {HaarDetector.name: HaarDetector}


def make_detector(name: str, longest_side: int = 320) -> Detector:
    """The detector called `name`.

    Raises:
        ConfigError: there is none of that name.
        DependencyError: what it needs is not installed.
    """
    if name not in DETECTORS:
        raise ConfigError(f"There is no detector called {name!r}; choose one of: {', '.join(sorted(DETECTORS))}.")
    return DETECTORS[name](longest_side=longest_side)


def _scaled(box: Sequence[int], factor: float) -> Box:
    x, y, width, height = (round(float(value) * factor) for value in box)
    return x, y, width, height
