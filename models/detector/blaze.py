"""BlazeFace (Bazarevsky et al. 2019, short range) as a detector: fast, with key points, not shipped with this project.

`fetch_blaze.py` gets its network, Apache-2.0, out of a published MediaPipe wheel when the owner asks for it.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DependencyError, ModelError
from models.detector.candidates import Candidates, blended, padded, reduced
from models.detector.detection import Detection
from models.onnx_session import open_session

NETWORK = "face_detection_short_range.tflite"
NETWORK_SHA256 = "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
LONGEST_SIDE = 256
THRESHOLD = 0.65
"""Of a guess. At 0.5 it finds 0.7 % more faces and a hundred times as many that are none; docs/webcam.md has the measurement."""

LEVELS = (("scores8", "boxes8", 8, 2), ("scores16", "boxes16", 16, 6))
"""Names of the outputs, stride in pixels, and guesses per cell."""

OUTPUTS = {"scores8": 160, "boxes8": 166, "scores16": 163, "boxes16": 169}
VALUES = 16
"""Per guess: x and y from the cell's middle, width, height, and x and y of six key points from the cell's middle, in pixels."""

FRAMING = (0.0, -0.118, 1.085)
"""From BlazeFace's square to a training crop's: right and down in parts of its side, then times its side."""


def network_path() -> Path:
    """Where the network lies: $XDG_DATA_HOME/emofl/detectors, by default ~/.local/share/emofl/detectors."""
    home = Path(os.environ.get("XDG_DATA_HOME", ""))
    base = home if home.is_absolute() else Path.home() / ".local" / "share"
    return base / "emofl" / "detectors" / NETWORK


class BlazeDetector:
    """The network run over the whole picture at once instead of on a 128-pixel square, so that small faces are found too."""

    name = "blaze"

    def __init__(self, size: int | None = None, threshold: float = THRESHOLD) -> None:
        """Load the network.

        Args:
            size: longer side in pixels of the picture that is searched (256).
            threshold: least score in (0, 1).

        Raises:
            DependencyError: it was not fetched, is not the file that is expected, or does not run.
        """
        self._longest, self._threshold = size or LONGEST_SIDE, threshold
        path = network_path()
        if not path.is_file():
            raise DependencyError(
                "The detector 'blaze' needs a network that is not shipped: fl-client webcam --get-detector fetches it once."
            )
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != NETWORK_SHA256:
            raise DependencyError(f"{path} is not the network that the detector 'blaze' expects; delete it and fetch it again.")
        try:
            from models.detector.tflite import onnx_from_tflite  # it takes onnx, which takes a while to load

            converted = onnx_from_tflite(content, OUTPUTS, scale=1 / 127.5, shift=-1.0)
        except ModelError as error:
            raise DependencyError(str(error)) from error
        self._session = open_session(converted, "The network of the detector 'blaze'")

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        colour = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
        small, factor = reduced(colour, self._longest)
        maps = dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), {"picture": padded(small)[None, :, :, ::-1]}), strict=True))
        parts = [
            _candidates(maps[scores][0], maps[boxes][0], stride, per, self._threshold) for scores, boxes, stride, per in LEVELS
        ]
        found = (np.concatenate([part[at] for part in parts]) for at in range(3))
        return blended(Candidates(*found), factor)


def _candidates(
    scores: NDArray[np.float32], boxes: NDArray[np.float32], stride: int, per_cell: int, threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Maps of one level -> scores (N,), squares (N, 3) framed as training crops, key points (N, 6, 2)."""
    guesses, rows, columns = np.nonzero(scores > np.log(threshold / (1 - threshold)))
    values = boxes.reshape(per_cell, VALUES, *boxes.shape[1:])[guesses, :, rows, columns]
    middle = np.stack([columns, rows], axis=1) * stride + np.float32(stride / 2)
    side = values[:, 2:4].mean(1)
    right, down, times = FRAMING
    centre = middle + values[:, :2] + side[:, None] * np.array([right, down], dtype=np.float32)
    squares = np.concatenate([centre, times * side[:, None]], axis=1)
    points = values[:, 4:].reshape(-1, 6, 2) + middle[:, None]
    sure = 1 / (1 + np.exp(-scores[guesses, rows, columns]))
    return sure.astype(np.float32), squares.astype(np.float32), points.astype(np.float32)
