"""The camera loop: take a frame, find faces, classify them all at once, draw, show and record; then the next frame.

`fl_client.webcam_commands` builds its parts and runs it. Nothing here opens a network connection.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fl_client.webcam.classifier import Classifier
from fl_client.webcam.detector import Detector
from fl_client.webcam.overlay import Status, draw
from fl_client.webcam.recorder import Outputs
from fl_client.webcam.seen import Seen, faces_of
from fl_client.webcam.source import Frame, Source
from fl_client.webcam.watcher import ModelWatcher
from fl_client.webcam.window import QUIT, Window


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs.

    Attributes:
        limit: stop after so many frames; None goes on until the source ends.
        mirror: show and record the frame as in a mirror; what the model sees stays as it is.
        least: below this probability, in [0, 1], a face's label is "unsure".
    """

    limit: int | None = None
    mirror: bool = False
    least: float = 0.0


@dataclass
class Tally:
    """What the loop did so far; times are in seconds of the monotonic clock.

    Attributes:
        elapsed: from the first frame's arrival to the last one's end, with the waiting for frames and keys.
        spent: by step: detect, classify, draw.
    """

    frames: int = 0
    faces: int = 0
    swaps: int = 0
    elapsed: float = 0.0
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("detect", "classify", "draw"), 0.0))

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the block's time to a step."""
        started = time.perf_counter()
        yield
        self.spent[step] += time.perf_counter() - started

    def summary(self, dropped: int = 0) -> str:
        """One line for the person."""
        if not self.frames:
            return "No frame was processed."
        steps = ", ".join(f"{name} {1000 * spent / self.frames:.1f} ms" for name, spent in self.spent.items())
        parts = [
            f"{self.frames} frame{'s' * (self.frames != 1)}",
            f"{self.faces} face{'s' * (self.faces != 1)}",
            f"{self.frames / max(self.elapsed, 1e-9):.1f} FPS on average",
            f"per frame: {steps}",
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

    def run(self) -> None:
        """Go on until the source ends, the limit is reached, or the person quits; `tally` says what was done.

        Raises:
            DeviceError: the camera is gone, or an output cannot be written.
            ModelError: the model's answer is not finite.
        """
        started = time.monotonic()
        pace = _Pace()
        for frame in self.source.frames():
            self._swap()
            seen = self.process(frame, None if self.source.facts.kind.stills else pace.fps)
            self.outputs.write(seen)
            self.tally.frames += 1
            self.tally.faces += len(seen.faces)
            quit_asked = self._show(seen, started)
            self.tally.elapsed = time.monotonic() - started
            pace.step()
            self.tick()
            if quit_asked or self.tally.frames == self.settings.limit:
                break

    def process(self, frame: Frame, fps: float | None) -> Seen:
        """One frame through detection, classification and drawing with the model in use."""
        model = self.classifier.model
        with self.tally.timed("detect"):
            boxes = self.detector.detect(frame.picture)
        with self.tally.timed("classify"):
            probabilities = self.classifier.probabilities(frame.picture, boxes)
        faces = faces_of(boxes, probabilities, model.classes, self.settings.least)
        status = Status(model.version, model.privacy, model.private, fps)
        with self.tally.timed("draw"):
            canvas = draw(frame.picture, faces, status, self.settings.mirror)
        return Seen(frame, faces, canvas, model.version)

    def _swap(self) -> None:
        if self.watcher is None:
            return
        if (newer := self.watcher.take()) is not None:
            self.classifier = newer
            self.tally.swaps += 1
            self.say(f"Now {newer.model.version}: {newer.model.privacy}.", False)
        for refusal in self.watcher.refusals():
            self.say(f"A newer model is refused: {refusal} {self.classifier.model.version} stays in use.", True)

    def _show(self, seen: Seen, started: float) -> bool:
        """Show the frame for as long as its source says; whether the person wants to quit."""
        if self.window is None:
            return False
        self.window.show(seen.canvas)
        kind = self.source.facts.kind
        if kind.stills:
            return self.window.key(None) == QUIT
        due = 0.0 if kind.live else started + seen.frame.seconds + 1 / self.source.facts.fps - time.monotonic()
        while (key := self.window.key(max(0.0, due))) not in (QUIT, ""):
            due = 0.0
        return key == QUIT


class _Pace:
    """Frames per second as a person would read them: averaged over about the last second."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._period: float | None = None

    @property
    def fps(self) -> float | None:
        return None if not self._period else 1 / self._period

    def step(self) -> None:
        now = time.monotonic()
        period, self._last = now - self._last, now
        weight = min(1.0, max(0.05, period))
        self._period = period if self._period is None else self._period + weight * (period - self._period)
