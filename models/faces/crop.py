"""The one way from a face's box to the square that the model sees: folders, capture, camera loop and REST call it.

The browser has its own copy in JavaScript; `tests/golden/crop.json` holds both to the same pixels.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels; may reach beyond the picture."""

Square = tuple[int, int, int]
"""left, top, side in pixels; may reach beyond the picture."""


def face_square(box: Box, margin: float = 0.0) -> Square:
    """The square around `box`'s centre: its longer side, widened by `margin` of it on each side, at least one pixel.

    Whole numbers throughout, halves rounded the same way in every language: side = floor(longer * (1 + 2 margin) + 1/2),
    left = x + floor((width - side) / 2), top likewise.
    """
    x, y, width, height = box
    side = max(1, math.floor(max(width, height) * (1 + 2 * margin) + 0.5))
    return x + (width - side) // 2, y + (height - side) // 2, side


def crop_face(picture: NDArray[np.uint8], box: Box, size: int, margin: float = 0.0) -> NDArray[np.uint8]:
    """(H, W[, 1, 3 BGR or 4 BGRA]) uint8 -> (size, size) uint8 grey: the square around `box`.

    In this order: cut out (pixels beyond the picture repeat its edge), to grey (`to_grey`), then to `size`: area average when
    shrinking, bilinear when enlarging, as OpenCV's INTER_AREA and INTER_LINEAR do it.
    """
    left, top, side = face_square(box, margin)
    rows, columns = picture.shape[:2]
    if left >= 0 and top >= 0 and left + side <= columns and top + side <= rows:
        face = picture[top : top + side, left : left + side]
    else:
        ys = np.clip(np.arange(top, top + side), 0, rows - 1)
        xs = np.clip(np.arange(left, left + side), 0, columns - 1)
        face = picture[ys][:, xs]
    face = to_grey(face)
    if side != size:
        how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        face = np.asarray(cv2.resize(face, (size, size), interpolation=how), dtype=np.uint8)
    return np.ascontiguousarray(face)


def to_grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA uint8 -> (H, W) uint8 by the ITU-R BT.601 weights."""
    if picture.ndim == 2:
        return picture
    if picture.shape[2] == 1:
        return picture[:, :, 0]
    code = cv2.COLOR_BGRA2GRAY if picture.shape[2] == 4 else cv2.COLOR_BGR2GRAY
    return np.asarray(cv2.cvtColor(picture, code), dtype=np.uint8)
