"""Capture with a live window: the person sees the camera, the prompt and the counts, and presses keys.

`fl-client capture` runs it. The picture is shown as in a mirror; what is stored is not mirrored.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_8
from fl_client.capture.face import Fault
from fl_client.capture.review import Review
from fl_client.capture.session import Session
from fl_client.capture.studio import Sight, Studio
from fl_client.webcam import paint
from fl_client.webcam.overlay import COLOURS
from fl_client.webcam.paint import Area, Canvas, Colour
from fl_client.webcam.source import Source
from fl_client.webcam.window import QUIT, Window

GOOD: Colour = (90, 200, 90)
WRONG: Colour = (40, 140, 255)
KEYS = "[space] take   [1-8] take that one   [n] next   [u] undo   [r] review   [q] quit"
PANEL = 230


@dataclass
class WindowForm:
    """One session in a window.

    Attributes:
        now: the clock.
    """

    studio: Studio
    source: Source
    window: Window
    now: Callable[[], float] = time.monotonic

    def run(self) -> None:
        """Go on until the person quits or the source ends. Reaching all targets ends nothing: it is said.

        Raises:
            DeviceError: the camera is gone.
        """
        said = ""
        started = self.now()
        for frame in self.source.frames():
            sight = self.studio.see(frame.picture, self.now())
            if sight.stored is not None:
                said = f"stored {sight.stored.name}"
            self.window.show(draw(frame.picture, sight, self.studio.session, said))
            due = 0.0 if self.source.facts.kind.live else started + frame.seconds + 1 / self.source.facts.fps - self.now()
            while key := self.window.key(max(0.0, due)):
                due = 0.0
                if key == QUIT:
                    return
                said = self._press(key)

    def _press(self, key: str) -> str:
        """What the key did, in one line."""
        studio = self.studio
        if key in (" ", "\r", "\n"):
            studio.begin(None, self.now())
            return "" if studio.session.burst else "all targets are reached; 1 to 8 takes more"
        if key.isdecimal() and 1 <= int(key) <= len(EMOTIONS_8):
            studio.begin(EMOTIONS_8[int(key) - 1], self.now())
            return ""
        if key.lower() == "n":
            studio.session = studio.session.skip()
        elif key.lower() == "u":
            return f"{studio.undo()} deleted"
        elif key.lower() == "r":
            self._review()
        return ""

    def _review(self) -> None:
        """The grid, until q."""
        review = Review(self.studio.album)
        said = ""
        while True:
            self.window.show(review.canvas(said))
            key = self.window.key(None)
            if key == QUIT:
                break
            self.studio.require_consent()
            said = review.press(key)
        self.studio.recount()


def draw(picture: NDArray[np.uint8], sight: Sight, session: Session, said: str = "") -> Canvas:
    """(H, W, 3) uint8 -> (H, W + PANEL, 3): the mirrored frame with the faces found, and the panel of counts beside it."""
    scale = max(1.0, 480 / picture.shape[0])
    mirrored = np.asarray(cv2.flip(picture, 1), dtype=np.uint8)
    if scale > 1.0:
        mirrored = np.asarray(cv2.resize(mirrored, None, fx=scale, fy=scale), dtype=np.uint8)
    height, width = mirrored.shape[:2]
    canvas = np.full((height, width + PANEL, 3), 28, np.uint8)
    canvas[:, :width] = mirrored
    view = canvas[:, :width]
    for detection in sight.detections:
        x, y, w, h = (round(value * scale) for value in detection.box)
        stored = sight.cut is not None and detection == sight.cut.detection
        colour = GOOD if stored and sight.fault is None else WRONG if stored or sight.fault is Fault.SEVERAL else paint.WHITE
        paint.outline(view, Area(width - x - w, y, w, h), colour, 2)
    burst = session.burst
    if burst is not None:
        prompt = f"{burst.emotion}: {burst.taken} of {session.rhythm.size}"
    else:
        prompt = f"please {session.prompt}" if not session.done else "all targets are reached: thank you"
    _banner(view, prompt, 0, 24, COLOURS.get((burst.emotion if burst else session.prompted) or "", paint.WHITE))
    for text, y in ((sight.hint or said, height - 62), (KEYS, height - 26)):
        if text:
            fitting, size = paint.fitted(text, 16, width - 16)
            paint.shade(view, Area(0, y - 4, paint.text_width(fitting, size) + 16, paint.line_height(size) + 8))
            paint.write(view, fitting, 8, y, size, paint.WHITE)
    _panel(canvas, session, width)
    return canvas


def _banner(view: Canvas, text: str, y: int, size: int, colour: Colour) -> None:
    text, size = paint.fitted(text, size, view.shape[1] - 24)
    paint.fill(view, Area(0, y, paint.text_width(text, size) + 24, paint.line_height(size) + 12), colour)
    paint.write(view, text, 12, y + 6, size, paint.readable_on(colour))


def _panel(canvas: Canvas, session: Session, left: int) -> None:
    """Every emotion with its key, its count and its target."""
    targets = dict(session.targets)
    step = min(54, (canvas.shape[0] - 16) // len(EMOTIONS_8))
    for number, name in enumerate(EMOTIONS_8):
        top = 8 + number * step
        have, want = session.count(name), targets.get(name, 0)
        colour = COLOURS[name]
        if name == session.prompted:
            paint.fill(canvas, Area(left, top, 5, step - 6), colour)
        paint.write(canvas, f"{number + 1}  {name}", left + 14, top, 16, paint.WHITE)
        figure = f"{have} of {want}" if want else str(have)
        paint.write(canvas, figure, left + PANEL - 12 - paint.text_width(figure, 14), top + 1, 14, paint.WHITE)
        room = PANEL - 26
        paint.fill(canvas, Area(left + 14, top + 26, room, 8), (70, 70, 70))
        part = min(1.0, have / want) if want else float(have > 0)
        paint.fill(canvas, Area(left + 14, top + 26, round(part * room), 8), colour)
