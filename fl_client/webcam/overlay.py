"""What the loop draws over a frame: boxes, labels, probability bars, and which model this is under which privacy.

Pure: a picture and what was seen go in, a new picture comes out. Sizes follow the frame's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_client.webcam import paint
from fl_client.webcam.paint import Area, Canvas, Colour
from fl_client.webcam.seen import Face

COLOURS: dict[str, Colour] = {
    "neutral": (196, 186, 178),
    "happiness": (40, 200, 250),
    "surprise": (40, 140, 255),
    "sadness": (250, 160, 90),
    "anger": (70, 70, 240),
    "disgust": (90, 200, 110),
    "fear": (240, 120, 190),
    "contempt": (190, 190, 60),
}
PLAIN: Colour = (225, 225, 225)
ALARM: Colour = (40, 40, 215)
NO_FACE = "no face in view"
BARS = 3
MOST_FACES_WITH_BARS = 4


@dataclass(frozen=True)
class Status:
    """What is true of the whole frame.

    Attributes:
        version: which model, as in "run abc round 12 #34".
        privacy: its privacy statement in short.
        private: False draws the statement as an alarm.
        fps: frames per second; None leaves it out.
    """

    version: str
    privacy: str
    private: bool
    fps: float | None = None


def draw(picture: NDArray[np.uint8], faces: Sequence[Face], status: Status, mirror: bool = False) -> Canvas:
    """The annotated copy of a (H, W, 3) uint8 picture; mirrored, the text still reads from left to right."""
    columns = picture.shape[1]
    canvas = np.asarray(cv2.flip(picture, 1), dtype=np.uint8) if mirror else picture.copy()
    if mirror:
        faces = [replace(face, box=(columns - face.box[0] - face.box[2], *face.box[1:])) for face in faces]
    letters = _letters(canvas)
    for face in faces:
        _draw_box(canvas, face, letters)
    panels = _draw_status(canvas, status, letters)
    for face in faces:
        _draw_label(canvas, face, letters, panels, bars=len(faces) <= MOST_FACES_WITH_BARS)
    if not faces:
        _draw_hint(canvas, NO_FACE, letters)
    return canvas


def _letters(canvas: Canvas) -> int:
    """Size of the label's letters in pixels: 17 on a 640x480 frame."""
    return max(paint.SMALLEST_TEXT, round(0.035 * float(np.sqrt(canvas.shape[0] * canvas.shape[1] * 0.75))))


def _colour(face: Face) -> Colour:
    return COLOURS.get(face.label, PLAIN)


def _draw_box(canvas: Canvas, face: Face, letters: int) -> None:
    paint.outline(canvas, Area(*face.box), _colour(face), thickness=max(1, letters // 6))


def _draw_label(canvas: Canvas, face: Face, letters: int, panels: Sequence[Area], bars: bool) -> None:
    """Above the box where there is room, else inside it, and never over the status."""
    rows, columns = canvas.shape[:2]
    x, y, width, height = face.box
    pad = letters // 3
    said = f"{face.label} {face.confidence:.0%}"
    text, size = paint.fitted(said, letters, columns - 2 * pad)
    label = Area(x, 0, paint.text_width(text, size) + 2 * pad, paint.line_height(size) + pad)
    label = label._replace(y=y - label.height if y >= label.height else y).inside(columns, rows)
    for panel in panels:
        if label.overlaps(panel):
            label = label._replace(y=panel.y + panel.height)
    paint.fill(canvas, label, _colour(face))
    paint.write(canvas, text, label.x + pad, label.y + pad // 2, size, paint.readable_on(_colour(face)))
    if bars and width >= 4 * letters:
        _draw_bars(canvas, face, Area(x, y + height + pad, width, 0), letters)


def _draw_bars(canvas: Canvas, face: Face, below: Area, letters: int) -> None:
    """The most likely classes in a panel under the box, or over its lower edge where there is no room under it."""
    rows, columns = canvas.shape[:2]
    size = max(paint.SMALLEST_TEXT, round(0.75 * letters))
    pad, line = size // 3, paint.line_height(size)
    shown = face.probabilities[:BARS]
    names = max(paint.text_width(name, size) for name, _ in shown)
    figures = paint.text_width("100%", size)
    width = max(below.width, names + figures + 4 * pad + 3 * size)
    if width > columns or len(shown) * line + 2 * pad > rows // 2:
        return
    panel = Area(below.x, below.y, width, len(shown) * line + 2 * pad).inside(columns, rows)
    paint.shade(canvas, panel)
    start, room = panel.x + names + 2 * pad, panel.width - names - figures - 4 * pad
    for at, (name, probability) in enumerate(shown):
        top = panel.y + pad + at * line
        paint.write(canvas, name, panel.x + pad, top, size, paint.WHITE)
        bar = Area(start, top + line // 4, room, max(2, line // 2))
        paint.fill(canvas, bar, (70, 70, 70))
        paint.fill(canvas, bar._replace(width=round(probability * room)), COLOURS.get(name, PLAIN))
        figure = f"{probability:.0%}"
        paint.write(canvas, figure, panel.x + panel.width - pad - paint.text_width(figure, size), top, size, paint.WHITE)


def _draw_status(canvas: Canvas, status: Status, letters: int) -> list[Area]:
    """Top left the privacy statement and under it the model's version; top right frames per second. What they cover.

    On frames too low for all that and a label the version is left out.
    """
    rows, columns = canvas.shape[:2]
    size = max(paint.SMALLEST_TEXT, round(0.8 * letters))
    pad = size // 3
    panels = []
    free = columns
    if status.fps is not None:
        speed = f"{status.fps:.1f} FPS"
        width = paint.text_width(speed, size) + 2 * pad
        if width < columns // 3:
            panels.append(Area(columns - width, 0, width, paint.line_height(size) + pad))
            paint.shade(canvas, panels[0])
            paint.write(canvas, speed, panels[0].x + pad, pad // 2, size, paint.WHITE)
            free = columns - width - pad
    text, fits = paint.fitted(status.privacy, size, free - 2 * pad)
    panels.append(Area(0, 0, paint.text_width(text, fits) + 2 * pad, paint.line_height(fits) + pad))
    if status.private:
        paint.shade(canvas, panels[-1])
    else:
        paint.fill(canvas, panels[-1], ALARM)
    paint.write(canvas, text, pad, pad // 2, fits, paint.WHITE)
    if rows >= 8 * size:
        text, fits = paint.fitted(status.version, size, columns - 2 * pad)
        top = panels[-1].height
        panels.append(Area(0, top, paint.text_width(text, fits) + 2 * pad, paint.line_height(fits) + pad))
        paint.shade(canvas, panels[-1])
        paint.write(canvas, text, pad, top + pad // 2, fits, paint.WHITE)
    return panels


def _draw_hint(canvas: Canvas, text: str, letters: int) -> None:
    rows, columns = canvas.shape[:2]
    pad = letters // 2
    text, size = paint.fitted(text, letters, columns - 2 * pad)
    width, height = paint.text_width(text, size) + 2 * pad, paint.line_height(size) + pad
    panel = Area((columns - width) // 2, rows - height - letters, width, height)
    paint.shade(canvas, panel)
    paint.write(canvas, text, panel.x + pad, panel.y + pad // 2, size, paint.WHITE)


def letterboxed(picture: NDArray[np.uint8], size: tuple[int, int]) -> Canvas:
    """The whole picture, reduced or enlarged onto a black (width, height) canvas; itself when the size is right."""
    width, height = size
    rows, columns = picture.shape[:2]
    if (columns, rows) == size:
        return picture
    scale = min(width / columns, height / rows)
    to = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    x, y = (width - to[0]) // 2, (height - to[1]) // 2
    canvas[y : y + to[1], x : x + to[0]] = cv2.resize(picture, to, interpolation=how)
    return canvas
