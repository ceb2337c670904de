"""The detector that the project trained itself (`models.detector`): small, shipped with it, no key points.

`detector.make_detector` builds it where the network is installed; `models.detector.training` says what it learns from.
"""

from dataclasses import replace
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from common.errors import DependencyError
from models.detector.candidates import Candidates, blended, padded, reduced
from models.detector.detection import Detection, from_left_to_right, without_doubles
from models.detector.levels import LEVELS, MODEL_FILE
from models.detector.second_look import SecondLook
from models.faces.crop import to_grey
from models.onnx_session import open_session

LONGEST_SIDE = 384
THRESHOLD, DOUBTFUL = 0.53, 0.35
"""Of a candidate's score: from the first on it is taken as it is, from the second on only where a second look finds it too.

In browsers, and with an OpenCV that carries no cascades, nobody looks twice, and the first alone decides. It is the highest that
finds 95 % of the faces of the public test split on composed frames, in ordinary light and in 15 % of it:
`python -m benchmarks.webcam_threshold [--light 0.15]`.
"""

MOST_LOOKS = 6
"""So many of a frame's doubtful places are looked at again, the likeliest first: 0.4 ms each."""


def grid_is_shipped() -> bool:
    """Whether this installation holds the network."""
    return (files("models.detector") / MODEL_FILE).is_file()


class GridDetector:
    """Two grids of cells, each of which says whether a face's middle lies in it, and where its square is."""

    name = "grid"

    def __init__(self, size: int | None = None, threshold: float = THRESHOLD, *, twice: bool = True) -> None:
        """Load the shipped network.

        Args:
            size: longer side in pixels of the grey picture that is searched (384).
            threshold: score in (0, 1) from which on a place is taken as it is; lower finds more faces and more that are none.
            twice: take, from `DOUBTFUL` on, what a second look finds too, where OpenCV has its cascades.

        Raises:
            DependencyError: the shipped file is missing or does not run.
        """
        self._longest = size or LONGEST_SIDE
        self._second_look = _second_look() if twice else None
        self._sure = threshold
        file = files("models.detector") / MODEL_FILE
        if not file.is_file():
            raise DependencyError(f"This installation lacks the network of the detector 'grid' (models/detector/{MODEL_FILE}).")
        self._session = open_session(file.read_bytes(), "The network of the detector 'grid'")

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        grey = to_grey(picture)
        small, factor = reduced(grey, self._longest)
        ready = padded(small)[None, None].astype(np.float32)
        maps = self._session.run(["fine", "coarse"], {"picture": ready})
        least = DOUBTFUL if self._second_look else self._sure
        parts = [_candidates(answer[0], level.stride, level.side, least) for answer, level in zip(maps, LEVELS, strict=True)]
        scores, squares = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
        found = blended(Candidates(scores, squares), factor)
        if self._second_look is None:
            return found
        sure = [one for one in found if one.score >= self._sure]
        doubtful = sorted((one for one in found if one.score < self._sure), key=lambda one: -one.score)[:MOST_LOOKS]
        looked = [(one, self._second_look.confirmed(grey, one.box)) for one in doubtful]
        return from_left_to_right(without_doubles([*sure, *(replace(one, box=box) for one, box in looked if box is not None)]))


def _second_look() -> SecondLook | None:
    try:
        return SecondLook()
    except DependencyError:
        return None


def _candidates(
    outputs: NDArray[np.float32], stride: int, unit: float, threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(4, rows, columns) outputs of one level -> scores (N,) and squares (N, 3) of the cells above the threshold."""
    rows, columns = np.nonzero(outputs[0] > np.log(threshold / (1 - threshold)))
    logit, dx, dy, size = outputs[:, rows, columns]
    sides = unit * np.exp(np.clip(size, -4, 4))
    xs, ys = (columns + 0.5) * stride + dx * sides, (rows + 0.5) * stride + dy * sides
    return 1 / (1 + np.exp(-logit)), np.stack([xs, ys, sides], axis=1).astype(np.float32)
