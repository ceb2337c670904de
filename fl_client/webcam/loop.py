"""The camera loop: take a frame, follow its faces, classify them all at once, steady, draw, show and record; then the next.

`fl_client.webcam_commands` builds its parts and runs it. Nothing here opens a network connection.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import ModelError
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.model import LoopModel
from fl_client.webcam.pace import PaceMeter
from fl_client.webcam.recorder import Outputs
from fl_client.webcam.seen import Face, Pace, Seen
from fl_client.webcam.smoothing import AS_IT_IS, SmoothingSettings
from fl_client.webcam.source import Frame, Source
from fl_client.webcam.steady_faces import SteadyFaces
from fl_client.webcam.timings import Timings
from fl_client.webcam.tracking import Tracker, TrackingSettings
from fl_client.webcam.watcher import ModelWatcher
from fl_client.webcam.window import QUIT, Window
from models.detector.detectors import Detector

Painter = Callable[[Frame, tuple[Face, ...], LoopModel, Pace], NDArray[np.uint8]]
"""Makes the annotated copy of a frame's picture, (H, W, 3) uint8, of a size of its own."""


def unpainted(frame: Frame, faces: tuple[Face, ...], model: LoopModel, pace: Pace) -> NDArray[np.uint8]:
    """A copy of the picture with nothing drawn on it."""
    return frame.picture.copy()


PAUSED_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs.

    Attributes:
        limit: stop after so many frames; None goes on until the source ends.
        tracking: how faces are followed. Pictures that stand alone are not followed.
        smoothing: how the labels are steadied. Pictures that stand alone are not smoothed.
        reread: seconds that the model's reading of a face holds before all faces are read again; 0 reads every frame.
    """

    limit: int | None = None
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    reread: float = 0.08


@dataclass
class Tally:
    """What the loop did so far.

    Attributes:
        elapsed: seconds from the first frame's arrival to the last one's end, with the waiting for frames and keys.
        timings: milliseconds of each stage.
    """

    frames: int = 0
    faces: int = 0
    swaps: int = 0
    elapsed: float = 0.0
    timings: Timings = field(default_factory=Timings)

    def summary(self, dropped: int = 0) -> str:
        """One line for the person."""
        if not self.frames:
            return "No frame was processed."
        steps = ", ".join(f"{row.stage} {row.mean:.1f} ms" for row in self.timings.rows()[:-1])
        parts = [
            f"{self.frames} frame{'s' * (self.frames != 1)}",
            f"{self.faces} face{'s' * (self.faces != 1)}",
            f"{self.frames / max(self.elapsed, 1e-9):.1f} FPS on average",
            *([f"per frame: {steps}"] if steps else []),
        ]
        if self.swaps:
            parts.append(f"{self.swaps} newer model{'s' * (self.swaps != 1)} taken over")
        if dropped:
            parts.append(f"{dropped} stale camera frames left out")
        return "; ".join(parts) + "."


@dataclass
class CameraLoop:
    """One run over one source.

    Attributes:
        classifier: runs the model in use; replaced between two frames when `watcher` has a newer one.
        say: receives each message for the person: the sentence, and whether it is a warning.
        tick: called after each frame, for a progress bar.
        painter: draws on a copy of each frame.
        on_key: receives every key but those that quit, and the frame that is shown. True: draw and show that frame again.
        heatmaps: whether faces carry their heatmap, where the model has one. May change between two frames.
        paused: while True the frame that is shown stays, and keys are still heard. May change in `on_key`.
    """

    source: Source
    detector: Detector
    classifier: Classifier
    outputs: Outputs
    settings: LoopSettings = LoopSettings()
    watcher: ModelWatcher | None = None
    window: Window | None = None
    say: Callable[[str, bool], None] = lambda sentence, warning: None
    tick: Callable[[], None] = lambda: None
    tally: Tally = field(default_factory=Tally)
    painter: Painter = unpainted
    on_key: Callable[[str, Seen], bool] = lambda key, seen: False
    heatmaps: bool = False
    paused: bool = False

    def __post_init__(self) -> None:
        self._faces = self._fresh_faces()
        self._before: list[Classifier] = []  # the one that the loop began with, and the last one before the one in use

    def run(self) -> None:
        """Go on until the source ends, the limit is reached, or the person quits; `tally` says what was done.

        Raises:
            DeviceError: the camera is gone, or an output cannot be written.
            ModelError: the model that the loop began with cannot read a face; newer ones that cannot are given up with a warning.
        """
        self._started = time.monotonic()
        stills, timings = self.source.facts.kind.stills, self.tally.timings
        meter = PaceMeter()
        self._faces = self._fresh_faces()
        for frame in self.source.frames():
            self._swap()
            pace = Pace() if stills else meter.pace
            seen = self.process(frame, pace)
            with timings.stage("record"):
                self.outputs.write(seen)
            self.tally.frames += 1
            self.tally.faces += len(seen.faces)
            quit_asked = self._show(seen, pace)
            self.tally.elapsed = time.monotonic() - self._started
            timings.next_frame()
            meter.step(frame.taken)
            self.tick()
            if quit_asked or self.tally.frames == self.settings.limit:
                break

    def process(self, frame: Frame, pace: Pace) -> Seen:
        """One frame through following, classification, smoothing and drawing with the model in use."""
        if self.source.facts.kind.stills:
            self._faces = self._fresh_faces()
        faces = self._read(frame)
        with self.tally.timings.stage("draw"):
            canvas = self.painter(frame, faces, self.classifier.model, pace)
        return Seen(frame, faces, canvas, self.classifier.model.version)

    def _read(self, frame: Frame) -> tuple[Face, ...]:
        """By the model in use or, where it fails, by the one before it, which then stays in use."""
        while True:
            try:
                return self._faces.read(frame, self.classifier, self.heatmaps)
            except ModelError as error:
                if not self._before:
                    raise
                self.classifier = self._before.pop()
                self.say(f"A newer model is given up: {error} {self.classifier.model.version} is in use again.", True)

    def _fresh_faces(self) -> SteadyFaces:
        """Nobody followed yet. For stills: detection on each one, no averages and no hysteresis."""
        tracking, smoothing, reread = self.settings.tracking, self.settings.smoothing, self.settings.reread
        if self.source.facts.kind.stills:
            tracking, smoothing, reread = TrackingSettings(every=1), replace(AS_IT_IS, least=smoothing.least), 0.0
        return SteadyFaces(Tracker(self.detector, tracking, self.tally.timings), smoothing, self.tally.timings, reread)

    def _swap(self) -> None:
        if self.watcher is None:
            return
        if (newer := self.watcher.take()) is not None:
            self._before = [*self._before[:1], self.classifier]
            self.classifier = newer
            self.tally.swaps += 1
            self.say(f"Now {newer.model.version}: {newer.model.privacy}.", False)
        for refusal in self.watcher.refusals():
            self.say(f"A newer model is refused: {refusal} {self.classifier.model.version} stays in use.", True)

    def _show(self, seen: Seen, pace: Pace) -> bool:
        """Show the frame for as long as its source says and a pause lasts; whether the person wants to quit."""
        if self.window is None:
            return False
        with self.tally.timings.stage("show"):
            self.window.show(seen.canvas)
        kind = self.source.facts.kind
        if kind.stills:
            return self._hear(seen, pace, None)
        due = 0.0 if kind.live else self._started + seen.frame.seconds + 1 / self.source.facts.fps
        quit_asked = self._hear(seen, pace, due)
        began = time.monotonic()
        while self.paused and not quit_asked:
            quit_asked = self._hear(seen, pace, time.monotonic() + PAUSED_POLL_SECONDS)
            self._started += time.monotonic() - began
            began = time.monotonic()
        return quit_asked

    def _hear(self, seen: Seen, pace: Pace, until: float | None) -> bool:
        """Hear keys until a time of the monotonic clock; None: until one that redraws nothing. Whether to quit."""
        if self.window is None:
            return False
        while True:
            key = self.window.key(None if until is None else max(0.0, until - time.monotonic()))
            if key in (QUIT, ""):
                return key == QUIT
            again = self.on_key(key, seen)
            if again:
                seen = replace(seen, canvas=self.painter(seen.frame, seen.faces, self.classifier.model, pace))
                self.window.show(seen.canvas)
            if until is None and not again:
                return False
