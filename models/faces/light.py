"""Gives a face that was taken in bad light the contrast that training faces have. `models.faces.inputs` calls it.

Measured, not assumed: docs/webcam.md, "Dim light". Faces in ordinary light pass through untouched, byte for byte.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

DIM = 24.0
"""A crop whose grey levels have a smaller standard deviation is dim; fewer than 1 in 100 training faces are."""

EMPTY = 4
"""Where the grey levels span no more than this, there is nothing to bring out."""

DARKEST, BRIGHTEST = 0.01, 0.99
"""The parts of the pixels that become black and white."""

GRAIN = 0.6
"""Standard deviation in pixels of the blur against the grain, which stretching would enlarge."""


def relit(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(size, size) uint8 grey -> the same, or if it is dim: smoothed, and stretched to the whole range."""
    _, spread = cv2.meanStdDev(face)
    if spread[0, 0] >= DIM:
        return face
    smooth = cv2.GaussianBlur(face, (0, 0), GRAIN)
    levels = np.sort(smooth, axis=None)
    low, high = (int(levels[round(part * (levels.size - 1))]) for part in (DARKEST, BRIGHTEST))
    if high - low <= EMPTY:
        return face
    stretched = (smooth.astype(np.float32) - low) * (255 / (high - low))
    return np.asarray(np.clip(np.rint(stretched), 0, 255), dtype=np.uint8)
