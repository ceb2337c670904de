"""What the loop found in one frame: the faces, and what the model says of each. Overlay and recorders read it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fl_client.webcam.source import Frame
from models.detector.detection import Point
from models.preprocess import Box

UNSURE = "unsure"


@dataclass(frozen=True)
class Face:
    """A face of the frame and what the model says of it.

    Attributes:
        box: in pixels of the frame.
        probabilities: (name, probability) of every class, the most likely first.
        label: what is shown: the class that the smoothing holds on to, mostly the most likely one, or `UNSURE`.
        track: the number it keeps from frame to frame; None where nothing follows it.
        heatmap: (h, w) float32 over the square that the model saw, how much each place speaks for the most likely class;
            None where the model does not tell, or nobody asked.
        keypoints: as `Detection.keypoints`.
    """

    box: Box
    probabilities: tuple[tuple[str, float], ...]
    label: str
    track: int | None = None
    heatmap: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    keypoints: tuple[Point, ...] | None = None

    @property
    def confidence(self) -> float:
        """The probability of what is shown; of the most likely class where that is `UNSURE`."""
        return dict(self.probabilities).get(self.label, self.probabilities[0][1])


@dataclass(frozen=True)
class Pace:
    """How fast the loop runs, averaged over about a second; None where it is not known or means nothing.

    Attributes:
        fps: frames per second.
        latency: milliseconds from the camera's picture to the screen.
    """

    fps: float | None = None
    latency: float | None = None


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
