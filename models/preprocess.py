"""From a picture and a face box to the model's input: one value, used in training, camera loop and browser alike.

The value travels inside the published manifest, so whoever runs a model prepares faces exactly as its training did.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.faces.crop import Box, crop_face

__all__ = ["Box", "Preprocessing"]


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

    def crop(self, picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
        """The square around `box`, widened by the margin, as (size, size) uint8 grey."""
        return crop_face(picture, box, self.size, self.crop_margin)

    def whole(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture that already is a face crop, as (size, size) uint8 grey: no margin is added."""
        rows, columns = picture.shape[:2]
        return crop_face(picture, (0, 0, columns, rows), self.size)

    def normalise(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, size, size) uint8 -> (N, 1, size, size) float32, the model's input."""
        scale, shift = np.float32(1 / (255 * self.std)), np.float32(self.mean / self.std)
        return faces[:, None].astype(np.float32) * scale - shift
