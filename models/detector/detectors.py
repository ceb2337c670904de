"""Finds faces in a frame: detectors by name behind one small protocol.

The loop, capture and REST call `make_detector` once and `detect` per picture; a better detector is one more entry of `DETECTORS`.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DependencyError
from models.detector.blaze import BlazeDetector, network_path
from models.detector.detection import Detection
from models.detector.grid import GridDetector, grid_is_shipped
from models.detector.haar import HaarDetector

__all__ = ["AUTO", "DETECTORS", "Detection", "Detector", "detector_names", "make_detector"]

AUTO = "auto"
"""The name that stands for the best detector that runs here."""

HINT = "The detector 'haar' is in use, which is slow and misses small faces; fl-client webcam --get-detector gets a better one."


class Detector(Protocol):
    """Finds faces. Used by one thread at a time.

    Attributes:
        name: as in `DETECTORS`.
    """

    name: str

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        """(H, W, 3) uint8 blue-green-red, or (H, W) grey -> faces in its pixels, from left to right."""
        ...


DETECTORS: dict[str, Callable[[int | None], Detector]] = {
    BlazeDetector.name: BlazeDetector,
    GridDetector.name: GridDetector,
    HaarDetector.name: HaarDetector,
}
"""What makes each detector from the longer side, in pixels, of the picture it searches (None: its own choice), best first."""


def detector_names() -> tuple[str, ...]:
    """What `make_detector` takes, for help texts."""
    return (AUTO, *DETECTORS)


def make_detector(name: str = AUTO, size: int | None = None, say: Callable[[str], None] = lambda sentence: None) -> Detector:
    """The detector called `name`; "auto" is the first of `DETECTORS` that runs here (`blaze` only where its owner fetched it).

    Args:
        size: longer side in pixels of the picture that is searched; more finds smaller faces, slower. None: the
            detector's own choice, at which it was measured.
        say: with "auto", receives one sentence when the first choice cannot run.

    Raises:
        ConfigError: there is none of that name.
        DependencyError: what it needs is not installed.
    """
    if name == AUTO:
        return _best(size, say)
    if name not in DETECTORS:
        raise ConfigError(f"There is no detector called {name!r}; choose one of: {', '.join(detector_names())}.")
    return DETECTORS[name](size)


def _best(size: int | None, say: Callable[[str], None]) -> Detector:
    here = {BlazeDetector.name: network_path().is_file(), GridDetector.name: grid_is_shipped()}
    names = [name for name in DETECTORS if here.get(name, True)]
    if names == [HaarDetector.name]:
        say(HINT)
    for name, following in pairwise(names):
        try:
            return DETECTORS[name](size)
        except DependencyError as error:
            say(f"{error} The detector {following!r} is used in its place.")
    return DETECTORS[names[-1]](size)
