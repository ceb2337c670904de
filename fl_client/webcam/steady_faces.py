"""From a frame to its faces: followed, read in one batch, and steadied. The camera loop calls `read` once per frame."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_client.webcam.classifier import Classifier
from fl_client.webcam.seen import UNSURE, Face
from fl_client.webcam.smoothing import SmoothingSettings, Steady, steadied
from fl_client.webcam.source import Frame
from fl_client.webcam.timings import Timings
from fl_client.webcam.tracking import Track, Tracker


@dataclass(frozen=True)
class _Known:
    """What was last read of a face."""

    state: Steady
    heat: NDArray[np.float32] | None


class SteadyFaces:
    """Holds what is known of each face that is followed.

    Args:
        reread: seconds that a reading holds; then all faces are read again, in one batch. A face that is new and a model
            that is new are read at once. 0 reads every frame.
    """

    def __init__(self, tracker: Tracker, smoothing: SmoothingSettings, timings: Timings, reread: float = 0.0) -> None:
        self._tracker, self._smoothing, self._timings, self._reread = tracker, smoothing, timings, reread
        self._known: dict[int, _Known] = {}
        self._read_at = 0.0
        self._read_by: Any = None
        self._waited = False

    def read(self, frame: Frame, classifier: Classifier, heatmaps: bool = False) -> tuple[Face, ...]:
        """The faces of the next frame, from left to right.

        Averages go on when a newer model takes over: it tells the same classes apart, in the same order.

        Raises:
            ModelError: the model's answer is not finite.
        """
        tracks = self._tracker.update(frame.picture)
        if self._due(frame, tracks, classifier, heatmaps):
            self._renew(frame, tracks, classifier, heatmaps)
        else:
            self._known = {track.number: self._known[track.number] for track in tracks}
        return tuple(_face(track, self._known[track.number], classifier.model.classes, heatmaps) for track in tracks)

    def _due(self, frame: Frame, tracks: list[Track], classifier: Classifier, heatmaps: bool) -> bool:
        """A frame that was searched has cost enough: unless it shows somebody new, the next one is read in its place."""
        if self._read_by is not classifier or any(track.number not in self._known for track in tracks):
            return True
        if heatmaps and classifier.has_heat and any(known.heat is None for known in self._known.values()):
            return True
        if 0 <= frame.seconds - self._read_at < self._reread:
            return False
        wait = self._tracker.costly and self._reread > 0 and not self._waited
        self._waited = wait
        return not wait

    def _renew(self, frame: Frame, tracks: list[Track], classifier: Classifier, heatmaps: bool) -> None:
        with self._timings.stage("classify"):
            reading = classifier.read(frame.picture, [track.box for track in tracks], heatmaps)
        with self._timings.stage("smooth"):
            elapsed, self._read_at, self._read_by = frame.seconds - self._read_at, frame.seconds, classifier
            self._known = {
                track.number: _Known(
                    steadied(self._state(track), reading.probabilities[at], elapsed, self._smoothing),
                    None if reading.heat is None else reading.heat[at],
                )
                for at, track in enumerate(tracks)
            }

    def _state(self, track: Track) -> Steady | None:
        known = self._known.get(track.number)
        return None if known is None else known.state


def _face(track: Track, known: _Known, classes: tuple[str, ...], heatmaps: bool) -> Face:
    state = known.state
    order = np.argsort(-state.probabilities, kind="stable").tolist()
    values = state.probabilities.tolist()
    return Face(
        box=track.box,
        probabilities=tuple((classes[at], values[at]) for at in order),
        label=UNSURE if state.shown is None else classes[state.shown],
        track=track.number,
        heatmap=known.heat[order[0] if state.shown is None else state.shown] if heatmaps and known.heat is not None else None,
        keypoints=track.keypoints,
    )
