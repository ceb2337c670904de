"""What the loop draws over a frame: boxes, labels, probability bars, and which model this is under which privacy.

Pure: a picture and what was seen go in, a new picture comes out. Sizes follow the frame's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_client.webcam import paint
from fl_client.webcam.badge import Badge, Tone
from fl_client.webcam.emoji import emoji
from fl_client.webcam.keys import PLAIN_VIEW, View
from fl_client.webcam.paint import Area, Canvas, Colour
from fl_client.webcam.seen import UNSURE, Face

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
CAUTION: Colour = (60, 190, 250)
CALM: Colour = (110, 190, 70)
NO_FACE = "no face in view"
BARS = 3
MOST_FACES_WITH_BARS = 4
SMALLEST_LETTERS = 11
"""Pixels of a label's letters on a small frame."""


@dataclass(frozen=True)
class Status:
    """What is true of the whole frame.

    Attributes:
        version: which model, as in "run abc round 12 #34".
        badge: what the model promises, and what of it was verified.
        fps: frames per second; None leaves it out.
        latency: milliseconds from the camera's picture to the screen; None leaves it out.
        quote: a line of text for the screen's foot, and the emotion it is for; empty for none.
        crop_margin: of the model's preprocessing: how far beyond its box the model sees.
    """

    version: str
    badge: Badge
    fps: float | None = None
    latency: float | None = None
    quote: str = ""
    mood: str = ""
    crop_margin: float = 0.0


def draw(picture: NDArray[np.uint8], faces: Sequence[Face], status: Status, view: View = PLAIN_VIEW) -> Canvas:
    """The annotated copy of a (H, W, 3) uint8 picture; mirrored, the text still reads from left to right."""
    columns = picture.shape[1]
    canvas = np.asarray(cv2.flip(picture, 1), dtype=np.uint8) if view.mirror else picture.copy()
    if view.mirror:
        faces = [_mirrored(face, columns) for face in faces]
    letters = letters_for(canvas)
    for face in faces:
        if view.heatmap and face.heatmap is not None:
            paint.glow(canvas, face.heatmap, _square(face, status.crop_margin))
    for face in faces:
        paint.outline(canvas, Area(*face.box), _colour(face), thickness=max(1, letters // 6))
    panels = _draw_status(canvas, status, letters)
    foot = _draw_foot(canvas, status, letters) if faces else _draw_line(canvas, NO_FACE, "", letters)
    for face in faces:
        _draw_label(canvas, face, letters, panels, view.numbers)
        if len(faces) <= MOST_FACES_WITH_BARS and face.box[2] >= 4 * letters:
            _draw_bars(canvas, face, letters, foot)
    return canvas


def letters_for(canvas: Canvas) -> int:
    """Size of a label's letters in pixels: 17 on a 640x480 frame."""
    return max(SMALLEST_LETTERS, round(0.035 * float(np.sqrt(canvas.shape[0] * canvas.shape[1] * 0.75))))


def _mirrored(face: Face, columns: int) -> Face:
    box = (columns - face.box[0] - face.box[2], *face.box[1:])
    return replace(face, box=box, heatmap=None if face.heatmap is None else face.heatmap[:, ::-1])


def _square(face: Face, margin: float) -> Area:
    """What the model saw of the face, as `Preprocessing.crop` cuts it."""
    x, y, width, height = face.box
    side = max(1, round(max(width, height) * (1 + 2 * margin)))
    return Area(round(x + width / 2 - side / 2), round(y + height / 2 - side / 2), side, side)


def _colour(face: Face) -> Colour:
    return COLOURS.get(face.label, PLAIN)


def _draw_label(canvas: Canvas, face: Face, letters: int, panels: Sequence[Area], numbers: bool) -> None:
    """Above the box where there is room, else inside it, and never over the status."""
    rows, columns = canvas.shape[:2]
    x, y = face.box[:2]
    pad = letters // 3
    said = face.label if face.label == UNSURE else f"{face.label} {face.confidence:.0%}"
    if numbers and face.track is not None:
        said += f"  #{face.track}"
    side = round(1.7 * letters)
    text, size = paint.fitted(said, letters, columns - 3 * pad - side)
    label = Area(x, 0, side + paint.text_width(text, size) + 2 * pad, max(side, paint.line_height(size)) + pad // 2)
    label = label._replace(y=y - label.height if y >= label.height else y).inside(columns, rows)
    for panel in panels:
        if label.overlaps(panel):
            label = label._replace(y=panel.y + panel.height)
    paint.fill(canvas, label, _colour(face))
    paint.stamp(canvas, emoji(face.label, side), label.x + pad // 2, label.y + (label.height - side) // 2)
    top = label.y + (label.height - paint.line_height(size)) // 2
    paint.write(canvas, text, label.x + side + pad, top, size, paint.readable_on(_colour(face)))


def _draw_bars(canvas: Canvas, face: Face, letters: int, foot: int) -> None:
    """The most likely classes in a panel under the box, or over its lower edge where there is no room under it."""
    columns = canvas.shape[1]
    x, y, width, height = face.box
    size = max(paint.SMALLEST_TEXT + 1, round(0.75 * letters))
    pad, line = size // 3, paint.line_height(size)
    shown = face.probabilities[:BARS]
    names = max(paint.text_width(name, size) for name, _ in shown)
    figures = paint.text_width("100%", size)
    width = max(width, names + figures + 4 * pad + 3 * size)
    if width > columns or len(shown) * line + 2 * pad > canvas.shape[0] // 2:
        return
    panel = Area(x, y + height + letters // 3, width, len(shown) * line + 2 * pad).inside(columns, foot)
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
    """Top right the speed, top left the badge; what they cover."""
    size = max(paint.SMALLEST_TEXT + 1, round(0.8 * letters))
    speed = _draw_speed(canvas, status, size)
    free = canvas.shape[1] if speed is None else speed.x - size // 3
    return [area for area in (speed, _draw_badge(canvas, status, size, free)) if area is not None]


def _draw_speed(canvas: Canvas, status: Status, size: int) -> Area | None:
    lines = [] if status.fps is None else [f"{status.fps:.0f} FPS" if status.fps >= 9.95 else f"{status.fps:.1f} FPS"]
    lines += [] if status.latency is None else [f"{status.latency:.0f} ms late"]
    if not lines:
        return None
    columns, pad = canvas.shape[1], size // 3
    width = max(paint.text_width(line, size) for line in lines) + 2 * pad
    if width >= columns // 3:
        return None
    panel = Area(columns - width, 0, width, len(lines) * paint.line_height(size) + 2 * pad)
    paint.shade(canvas, panel)
    for at, line in enumerate(lines):
        top = pad + at * paint.line_height(size)
        paint.write(canvas, line, columns - pad - paint.text_width(line, size), top, size, paint.WHITE)
    return panel


def _draw_badge(canvas: Canvas, status: Status, size: int, free: int) -> Area:
    """Promises first; on frames too low for them and a label, the lines under them are left out, the last one first."""
    badge, pad = status.badge, size // 3
    strip = max(3, size // 4)
    version = f"{status.version}, {badge.signature}" if badge.signature else status.version
    room = max(len(badge.promises), int(0.26 * canvas.shape[0]) // paint.line_height(size))
    lines = [line for line in (*badge.promises, version, badge.devices) if line][:room]
    fitted = [paint.fitted(line, size, free - strip - 2 * pad) for line in lines]
    width = strip + max(paint.text_width(*each) for each in fitted) + 2 * pad
    panel = Area(0, 0, width, len(lines) * paint.line_height(size) + 2 * pad)
    paint.shade(canvas, panel)
    loud = {Tone.PRIVATE: CALM, Tone.PUBLIC: CAUTION, Tone.ALARM: ALARM}[badge.tone]
    paint.fill(canvas, panel._replace(width=strip), loud)
    if badge.tone is Tone.ALARM:
        paint.fill(canvas, panel._replace(height=len(badge.promises) * paint.line_height(size) + pad), loud)
    for at, (text, fits) in enumerate(fitted):
        top = pad + at * paint.line_height(size) + (paint.line_height(size) - paint.line_height(fits)) // 2
        paint.write(canvas, text, strip + pad, top, fits, paint.WHITE)
    return panel


def _draw_foot(canvas: Canvas, status: Status, letters: int) -> int:
    """The quote, if there is one; the row above which the rest of the frame lies."""
    if not status.quote:
        return int(canvas.shape[0])
    return _draw_line(canvas, status.quote, status.mood, letters)


def _draw_line(canvas: Canvas, text: str, mood: str, letters: int) -> int:
    """A line of text at the foot of the frame, with the mood's face; its upper row."""
    rows, columns = canvas.shape[:2]
    pad = letters // 2
    side = round(1.7 * letters) if mood else 0
    text, size = paint.fitted(text, letters, columns - 3 * pad - side)
    width, height = side + paint.text_width(text, size) + 3 * pad, max(side, paint.line_height(size)) + pad
    panel = Area((columns - width) // 2, rows - height - letters // 2, width, height)
    paint.shade(canvas, panel)
    if mood:
        paint.stamp(canvas, emoji(mood, side), panel.x + pad, panel.y + pad // 2)
    top = panel.y + (height - paint.line_height(size)) // 2
    paint.write(canvas, text, panel.x + side + (2 if mood else 1) * pad, top, size, paint.WHITE)
    return panel.y


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
