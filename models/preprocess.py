"""From a picture and a face box to the model's input: one value, used in training, camera loop and browser alike.

The value travels inside the published manifest, so whoever runs a model prepares faces exactly as its training did.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels; may reach beyond the picture."""


class Preprocessing(BaseModel):
    """How a face becomes an input of shape (1, size, size).

    Attributes:
        size: side of the square crop in pixels.
        colour: always one grey channel (ITU-R BT.601 weights, as OpenCV's COLOR_BGR2GRAY).
        crop_margin: part of the box's longer side added on each side before cropping, in [0, 1].
        border: pixels outside the picture repeat its edge.
        resize: area average when shrinking, bilinear when enlarging.
        mean, std: input = (pixel / 255 - mean) / std.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=48, ge=16, le=512)
    colour: Literal["grey"] = "grey"
    crop_margin: float = Field(default=0.0, ge=0.0, le=1.0)
    border: Literal["replicate"] = "replicate"
    resize: Literal["area-or-linear"] = "area-or-linear"
    mean: float = 0.5
    std: float = Field(default=0.25, gt=0.0)

    def grey(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA uint8 -> (H, W) uint8."""
        if picture.ndim == 2:
            return picture
        if picture.shape[2] == 1:
            return picture[:, :, 0]
        code = cv2.COLOR_BGRA2GRAY if picture.shape[2] == 4 else cv2.COLOR_BGR2GRAY
        return np.asarray(cv2.cvtColor(picture, code), dtype=np.uint8)

    def crop(self, picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
        """The square around `box`, widened by the margin, as (size, size) uint8 grey."""
        x, y, width, height = box
        side = max(1, round(max(width, height) * (1 + 2 * self.crop_margin)))
        left, top = round(x + width / 2 - side / 2), round(y + height / 2 - side / 2)
        rows, columns = picture.shape[:2]
        ys = np.clip(np.arange(top, top + side), 0, rows - 1)
        xs = np.clip(np.arange(left, left + side), 0, columns - 1)
        inside = left >= 0 and top >= 0 and left + side <= columns and top + side <= rows
        face = picture[top : top + side, left : left + side] if inside else picture[ys][:, xs]
        face = self.grey(face)
        if side != self.size:
            how = cv2.INTER_AREA if side > self.size else cv2.INTER_LINEAR
            face = np.asarray(cv2.resize(face, (self.size, self.size), interpolation=how), dtype=np.uint8)
        return np.ascontiguousarray(face)

    def whole(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture that already is a face crop, as (size, size) uint8 grey: no margin is added."""
        rows, columns = picture.shape[:2]
        plain = self.model_copy(update={"crop_margin": 0.0})
        return plain.crop(picture, (0, 0, columns, rows))

    def normalise(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, size, size) uint8 -> (N, 1, size, size) float32, the model's input."""
        scale, shift = np.float32(1 / (255 * self.std)), np.float32(self.mean / self.std)
        return faces[:, None].astype(np.float32) * scale - shift
