"""Follows faces from frame to frame, so that detection need not run on each one and every face keeps its number.

The loop calls `update` once per frame. Between detections boxes follow the picture by optical flow (`flow.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from fl_client.webcam.flow import ExactBox, FlowFollower, Motion
from fl_client.webcam.timings import Timings
from models.detector.detection import Detection, Point, overlap
from models.detector.detectors import Detector
from models.preprocess import Box

LEAST_OVERLAP = 0.25
"""A detection that shares less than this of its union with a track's box is another face."""


@dataclass(frozen=True)
class TrackingSettings:
    """How faces are followed.

    Attributes:
        every: detection runs on every so-manieth frame, and on each frame while no face is held; 1 never follows.
        between: what happens to the boxes of the frames between: "flow" moves them with the picture, "hold" leaves them.
        patience: a face that so many detections in a row did not find is forgotten.
        weight: of a new detection against the box that was followed, in (0, 1]; less trembles less and lags more.
    """

    every: int = 5
    between: Literal["flow", "hold"] = "flow"
    patience: int = 2
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.every < 1 or self.patience < 1:
            raise ConfigError(f"Detection's every and patience must be 1 or more, not {self.every} and {self.patience}.")
        if not 0 < self.weight <= 1:
            raise ConfigError(f"The weight of a detection must lie in (0, 1], not {self.weight}.")


@dataclass(frozen=True)
class Track:
    """A face that is followed.

    Attributes:
        number: 1, 2, ... in the order of appearance; never used again for another face.
        exact: x, y, width, height in pixels of this frame, not rounded, so that slow motion is not lost.
        score: of its latest detection.
        keypoints: moved along with the box; None where the detector gives none.
        missed: detections in a row that did not find it; 0: the latest did.
    """

    number: int
    exact: ExactBox
    score: float
    keypoints: tuple[Point, ...] | None = None
    missed: int = 0

    @property
    def box(self) -> Box:
        """In whole pixels, as `Detection.box`; a square stays one."""
        x, y, width, height = self.exact
        wide, high = max(1, round(width)), max(1, round(height))
        return round(x + width / 2 - wide / 2), round(y + height / 2 - high / 2), wide, high


class Tracker:
    """Follows the faces of one source."""

    def __init__(self, detector: Detector, settings: TrackingSettings | None = None, timings: Timings | None = None) -> None:
        self._detector, self._settings = detector, settings or TrackingSettings()
        self._timings = timings or Timings()
        self._follower = FlowFollower()
        self._tracks: list[Track] = []
        self._since_detection = 0
        self._next = 1
        self.costly = False
        """Whether the latest frame was searched while others are only followed."""

    def update(self, picture: NDArray[np.uint8]) -> list[Track]:
        """The faces of the next frame, (H, W, 3) uint8, from left to right."""
        following = self._settings.every > 1 and self._settings.between == "flow"
        lost = False
        if following and self._tracks:
            with self._timings.stage("track"):
                motions = self._follower.motions(picture, [track.box for track in self._tracks])
                lost = any(motion is None for motion in motions)
                self._tracks = [_moved(track, motion) for track, motion in zip(self._tracks, motions, strict=True)]
        self._since_detection += 1
        search = lost or not self._tracks or self._since_detection >= self._settings.every
        self.costly = search and self._settings.every > 1
        if search:
            with self._timings.stage("detect"):
                found = self._detector.detect(picture)
            self._since_detection = 0
            self._tracks = self._joined(found)
        if following:
            with self._timings.stage("track"):
                self._follower.remember(picture, [track.box for track in self._tracks])
        return sorted(self._tracks, key=lambda track: track.box)

    def _joined(self, found: Sequence[Detection]) -> list[Track]:
        pairs = matched([track.box for track in self._tracks], [detection.box for detection in found])
        kept = []
        for at, track in enumerate(self._tracks):
            if (detection := pairs.get(at)) is not None:
                kept.append(_renewed(track, found[detection], self._settings.weight))
            elif track.missed + 1 < self._settings.patience:
                kept.append(replace(track, missed=track.missed + 1))
        for at, new in enumerate(found):
            if at not in pairs.values():
                kept.append(Track(self._next, new.box, new.score, new.keypoints))
                self._next += 1
        return kept


def matched(tracks: Sequence[Box], found: Sequence[Box], least: float = LEAST_OVERLAP) -> dict[int, int]:
    """Which detection continues which track: indices of `tracks` to indices of `found`, each used once.

    Pairs are taken in the order of their overlap, the largest first; none below `least`.
    """
    pairs = [(overlap(one, other), at, to) for at, one in enumerate(tracks) for to, other in enumerate(found)]
    taken: dict[int, int] = {}
    for shared, at, to in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if shared >= least and at not in taken and to not in taken.values():
            taken[at] = to
    return taken


def _renewed(track: Track, detection: Detection, weight: float) -> Track:
    x, y, width, height = (old + weight * (new - old) for old, new in zip(track.exact, detection.box, strict=True))
    return Track(track.number, (x, y, width, height), detection.score, detection.keypoints)


def _moved(track: Track, motion: Motion | None) -> Track:
    if motion is None:
        return track
    points = None if track.keypoints is None else tuple(motion.point(point) for point in track.keypoints)
    return replace(track, exact=motion.box(track.exact), keypoints=points)
