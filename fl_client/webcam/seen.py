"""What the loop found in one frame: the faces, and what the model says of each. Overlay and recorders read it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_client.webcam.source import Frame
from models.preprocess import Box

UNSURE = "unsure"


@dataclass(frozen=True)
class Face:
    """A face of the frame and what the model says of it.

    Attributes:
        box: in pixels of the frame.
        probabilities: (name, probability) of every class, the most likely first.
        label: the most likely class, or `UNSURE` when its probability is below the least that is asked for.
    """

    box: Box
    probabilities: tuple[tuple[str, float], ...]
    label: str

    @property
    def confidence(self) -> float:
        """The highest probability."""
        return self.probabilities[0][1]


@dataclass(frozen=True)
class Seen:
    """One processed frame.

    Attributes:
        canvas: (H, W, 3) uint8, the annotated copy of the frame's picture, mirrored if that is asked for.
        version: of the model that was used.
    """

    frame: Frame
    faces: tuple[Face, ...]
    canvas: NDArray[np.uint8]
    version: str


def faces_of(
    boxes: Sequence[Box], probabilities: NDArray[np.float32], classes: Sequence[str], least: float = 0.0
) -> tuple[Face, ...]:
    """N boxes and (N, C) probabilities -> N faces; below `least`, in [0, 1], a face's label is `UNSURE`."""
    faces = []
    for box, row in zip(boxes, probabilities, strict=True):
        order = np.argsort(-row, kind="stable")
        ranked = tuple((classes[at], float(row[at])) for at in order)
        faces.append(Face(box, ranked, ranked[0][0] if ranked[0][1] >= least else UNSURE))
    return tuple(faces)
