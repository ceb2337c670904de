"""Finds the faces in a picture that somebody sent. `fl_server.predict` asks it; the camera page and the client have their own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import DependencyError
from models.preprocess import Box

LONGEST, SMALLEST = 640, 24
"""Pixels: of the picture that is searched, and of the smallest face in it."""


def make_finder() -> Callable[[NDArray[np.uint8]], Sequence[tuple[Box, float]]]:
    """A function from (H, W, 3) uint8 blue-green-red to squares framed as training crops, each with the score 1.

    Raises:
        DependencyError: this OpenCV carries no cascades.
    """
    cascade = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / "haarcascade_frontalface_alt2.xml"
    if not hasattr(cv2, "CascadeClassifier") or not cascade.is_file():
        raise DependencyError('This OpenCV has no face detector; install a 4.x wheel: pip install "opencv-python-headless<5".')
    classifier = cv2.CascadeClassifier(str(cascade))

    def find(picture: NDArray[np.uint8]) -> list[tuple[Box, float]]:
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        factor = max(1.0, max(grey.shape) / LONGEST)
        if factor > 1:
            to = (round(grey.shape[1] / factor), round(grey.shape[0] / factor))
            grey = cv2.resize(grey, to, interpolation=cv2.INTER_AREA)
        found = classifier.detectMultiScale(cv2.equalizeHist(grey), scaleFactor=1.1, minNeighbors=3, minSize=(SMALLEST, SMALLEST))
        boxes = sorted(tuple(round(float(side) * factor) for side in box) for box in found)
        return [((x, y, width, height), 1.0) for x, y, width, height in boxes]

    return find
