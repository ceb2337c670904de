"""The detector that the project trained itself (`models.detector`): small, shipped with it, no key points.

`detector.make_detector` builds it where the network is installed; `models.detector.training` says what it learns from.
"""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from common.errors import DependencyError
from fl_client.webcam.candidates import Candidates, blended, open_session, padded, reduced
from fl_client.webcam.detection import Detection
from models.detector.levels import LEVELS, MODEL_FILE
from models.faces.crop import to_grey

LONGEST_SIDE = 256
THRESHOLD = 0.5
"""Of a candidate's score; chosen on scenes of the public test split, see `benchmarks.webcam`."""


def grid_is_shipped() -> bool:
    """Whether this installation holds the network."""
    return (files("models.detector") / MODEL_FILE).is_file()


class GridDetector:
    """Two grids of cells, each of which says whether a face's middle lies in it, and where its square is."""

    name = "grid"

    def __init__(self, size: int | None = None, threshold: float = THRESHOLD) -> None:
        """Load the shipped network.

        Args:
            size: longer side in pixels of the grey picture that is searched (256).
            threshold: least score in (0, 1); lower finds more faces and more that are none.

        Raises:
            DependencyError: the shipped file is missing or does not run.
        """
        self._longest, self._threshold = size or LONGEST_SIDE, threshold
        file = files("models.detector") / MODEL_FILE
        if not file.is_file():
            raise DependencyError(f"This installation lacks the network of the detector 'grid' (models/detector/{MODEL_FILE}).")
        self._session = open_session(file.read_bytes(), "The network of the detector 'grid'")

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        small, factor = reduced(to_grey(picture), self._longest)
        ready = padded(small)[None, None].astype(np.float32)
        maps = self._session.run(["fine", "coarse"], {"picture": ready})
        parts = [
            _candidates(answer[0], level.stride, level.side, self._threshold) for answer, level in zip(maps, LEVELS, strict=True)
        ]
        scores, squares = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
        return blended(Candidates(scores, squares), factor)


def _candidates(
    outputs: NDArray[np.float32], stride: int, unit: float, threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(4, rows, columns) outputs of one level -> scores (N,) and squares (N, 3) of the cells above the threshold."""
    rows, columns = np.nonzero(outputs[0] > np.log(threshold / (1 - threshold)))
    logit, dx, dy, size = outputs[:, rows, columns]
    sides = unit * np.exp(np.clip(size, -4, 4))
    xs, ys = (columns + 0.5) * stride + dx * sides, (rows + 0.5) * stride + dy * sides
    return 1 / (1 + np.exp(-logit)), np.stack([xs, ys, sides], axis=1).astype(np.float32)
