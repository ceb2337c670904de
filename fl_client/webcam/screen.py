"""What a person sees and does: paints frames, obeys keys, takes snapshots, begins and ends recordings.

The camera command gives its `paint` and `pressed` to the loop, and puts `MarkedWindow` before the window.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import DeviceError
from common.files import write_once
from fl_client.webcam.keys import PLAIN_VIEW, Action, View, action
from fl_client.webcam.marks import Marks, marked
from fl_client.webcam.model import LoopModel
from fl_client.webcam.overlay import Status, draw
from fl_client.webcam.parts import unused
from fl_client.webcam.quotes import Quotes
from fl_client.webcam.recorder import Outputs
from fl_client.webcam.seen import UNSURE, Face, Pace, Seen
from fl_client.webcam.source import Frame
from fl_client.webcam.window import Window
from models.faces.report import printable

MESSAGE_SECONDS = 3.0
REFRESH_SECONDS = 0.2
"""How often a standing picture's marks are looked at."""


@dataclass
class Screen:
    """One run's screen.

    Attributes:
        outputs: what is written; `r` begins and ends a recording.
        folder: where snapshots and recordings go.
        view: what the person wants to see; keys change it.
        stills: every frame stands until a key is pressed, so that there is nothing to pause.
        say: receives each message for the terminal: the sentence, and whether it is a warning.
        paused: the loop shall stand still.
    """

    outputs: Outputs
    folder: Path = Path()
    view: View = PLAIN_VIEW
    quotes: Quotes = field(default_factory=Quotes)
    stills: bool = False
    say: Callable[[str, bool], None] = lambda sentence, warning: None
    now: Callable[[], float] = time.monotonic
    paused: bool = False

    def __post_init__(self) -> None:
        self._message, self._until = "", 0.0
        self._writing_since: float | None = None

    def paint(self, frame: Frame, faces: tuple[Face, ...], model: LoopModel, pace: Pace) -> NDArray[np.uint8]:
        """The annotated copy of a frame, as it is shown and recorded."""
        mood, quote = self._quote(frame, faces)
        margin = model.preprocessing.crop_margin
        status = Status(model.version, model.seal, pace.fps, pace.latency, quote, mood, margin)
        return draw(frame.picture, faces, status, self.view)

    def pressed(self, key: str, seen: Seen) -> bool:
        """Obey `key`, pressed while `seen` is shown; whether the frame is to be painted again."""
        if (view := self.view.pressed(key)) is not None:
            if view.heatmap and not self.view.heatmap and seen.faces and all(face.heatmap is None for face in seen.faces):
                self.remind("This model gives no heatmap.")
            self.view = view
            return True
        match action(key):
            case Action.PAUSE if not self.stills:
                self.paused = not self.paused
            case Action.SNAPSHOT:
                self._snapshot(seen)
            case Action.RECORD:
                self.record()
            case _:
                return False
        return True

    def record(self) -> None:
        """Begin a recording, or end the one that goes on."""
        try:
            if self.outputs.recording:
                names = " and ".join(path.name for path in self.outputs.stop())
                self.tell(f"Recorded {names}." if names else "Nothing was recorded.")
            else:
                self.outputs.start()
        except DeviceError as error:
            self.tell(str(error), warning=True)

    def tell(self, sentence: str, warning: bool = False) -> None:
        """Show a sentence for some seconds, and say it in the terminal."""
        self.remind(sentence)
        self.say(sentence, warning)

    def remind(self, sentence: str) -> None:
        """Show a sentence for some seconds."""
        self._message, self._until = printable(sentence), self.now() + MESSAGE_SECONDS

    def marks(self) -> Marks:
        """What the window shows over the frame just now."""
        now = self.now()
        if not self.outputs.writing:
            self._writing_since = None
        elif self._writing_since is None:
            self._writing_since = now
        since = self._writing_since
        recording = "" if since is None else "REC {}:{:02}".format(*divmod(int(now - since), 60))
        return Marks(recording, self.paused, self._message if now < self._until else "", self.view.help)

    def _quote(self, frame: Frame, faces: tuple[Face, ...]) -> tuple[str, str]:
        """The emotion of the largest face of which the model is sure, and a line for it; empty for none."""
        sure = [face for face in faces if face.label != UNSURE]
        if not (self.view.quotes and sure):
            return "", ""
        mood = max(sure, key=lambda face: face.box[2] * face.box[3]).label
        return mood, self.quotes.line(mood, frame.seconds)

    def _snapshot(self, seen: Seen) -> None:
        """Keep what is shown as a .png for its owner only (0600), never over another file."""
        ok, encoded = cv2.imencode(".png", seen.canvas)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            while ok:
                path = unused(self.folder, f"emofl-{time.strftime('%Y%m%d-%H%M%S')}", (".png",)).with_suffix(".png")
                if write_once(path, encoded.tobytes(), 0o600):
                    return self.tell(f"Saved {path.name}.")
        except OSError as error:
            return self.tell(f"The snapshot could not be saved in {self.folder.resolve()}: {error.strerror}.", warning=True)
        return self.tell("This OpenCV cannot write .png pictures.", warning=True)


@dataclass
class MarkedWindow:
    """A window that shows each frame with the screen's marks on it, which change while the frame stands."""

    window: Window
    screen: Screen

    def show(self, canvas: NDArray[np.uint8]) -> None:
        self._canvas, self._marks = canvas, self.screen.marks()
        self.window.show(marked(canvas, self._marks))

    def key(self, wait: float | None = 0.0) -> str:
        deadline = None if wait is None else self.screen.now() + wait
        while True:
            left = REFRESH_SECONDS if deadline is None else min(REFRESH_SECONDS, deadline - self.screen.now())
            if key := self.window.key(max(0.0, left)):
                return key
            if deadline is not None and self.screen.now() >= deadline:
                return ""
            if self.screen.marks() != self._marks:
                self.show(self._canvas)

    def close(self) -> None:
        self.window.close()
