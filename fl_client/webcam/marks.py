"""What only the window shows, over the annotated frame and never in a file: recording mark, pause, messages and help.

Pure: `screen.py` says what holds, `marked` draws it on a copy.
"""

from dataclasses import dataclass

from fl_client.webcam import paint
from fl_client.webcam.keys import KEYS
from fl_client.webcam.overlay import letters_for
from fl_client.webcam.paint import Area, Canvas, Colour

RED: Colour = (40, 40, 215)


@dataclass(frozen=True)
class Marks:
    """What holds at this moment.

    Attributes:
        recording: what the red mark says, as in "REC 0:12"; empty while nothing is written.
        paused: the picture stands.
        message: a line that goes away by itself.
        help: the keys are shown.
    """

    recording: str = ""
    paused: bool = False
    message: str = ""
    help: bool = False


NOTHING = Marks()


def marked(canvas: Canvas, marks: Marks) -> Canvas:
    """A copy of the canvas with the marks; the canvas itself where there are none."""
    if marks == NOTHING:
        return canvas
    copy: Canvas = canvas.copy()
    letters = letters_for(copy)
    if marks.recording:
        _draw_recording(copy, marks.recording, letters)
    if marks.help:
        _draw_help(copy, letters)
    lines = [line for line in ("paused: space goes on" if marks.paused else "", marks.message) if line]
    for at, line in enumerate(lines):
        _draw_line(copy, line, letters, at)
    return copy


def _draw_recording(canvas: Canvas, text: str, letters: int) -> None:
    """A red frame around everything, and a red sign at its right edge, under the speed."""
    rows, columns = canvas.shape[:2]
    thick = max(2, letters // 5)
    for edge in (
        Area(0, 0, columns, thick),
        Area(0, rows - thick, columns, thick),
        Area(0, 0, thick, rows),
        Area(columns - thick, 0, thick, rows),
    ):
        paint.fill(canvas, edge, RED)
    pad, dot = letters // 3, max(4, letters // 2)
    text, size = paint.fitted(text, letters, columns - 4 * pad - dot)
    height = paint.line_height(size) + pad
    width = dot + paint.text_width(text, size) + 3 * pad
    sign = Area(columns - width, min(3 * letters, rows - height), width, height)
    paint.fill(canvas, sign, RED)
    paint.fill(canvas, Area(sign.x + pad, sign.y + (height - dot) // 2, dot, dot), paint.WHITE)
    paint.write(canvas, text, sign.x + 2 * pad + dot, sign.y + pad // 2, size, paint.WHITE)


def _draw_line(canvas: Canvas, text: str, letters: int, at: int) -> None:
    """A line in the middle of the frame; `at` counts them downwards."""
    rows, columns = canvas.shape[:2]
    pad = letters // 2
    text, size = paint.fitted(text, letters, columns - 2 * pad)
    width, height = paint.text_width(text, size) + 2 * pad, paint.line_height(size) + pad
    panel = Area((columns - width) // 2, rows // 2 + at * (height + pad), width, height)
    paint.fill(canvas, panel, (40, 40, 40))
    paint.write(canvas, text, panel.x + pad, panel.y + pad // 2, size, paint.WHITE)


def _draw_help(canvas: Canvas, letters: int) -> None:
    """The keys, as large as the frame has room for."""
    rows, columns = canvas.shape[:2]
    size = letters
    while size > paint.SMALLEST_TEXT and not _fits(size, columns, rows):
        size -= 1
    keys = max(paint.text_width(key, size) for key, _ in KEYS)
    names = max(paint.text_width(name, size) for _, name in KEYS)
    line, pad = paint.line_height(size), size
    panel = Area(0, 0, keys + names + 3 * pad, len(KEYS) * line + pad)
    panel = panel._replace(x=(columns - panel.width) // 2, y=(rows - panel.height) // 2)
    paint.shade(canvas, panel)
    paint.shade(canvas, panel)
    for at, (key, name) in enumerate(KEYS):
        top = panel.y + pad // 2 + at * line
        paint.write(canvas, key, panel.x + pad, top, size, (120, 220, 255))
        paint.write(canvas, name, panel.x + keys + 2 * pad, top, size, paint.WHITE)


def _fits(size: int, columns: int, rows: int) -> bool:
    width = max(paint.text_width(key, size) for key, _ in KEYS) + max(paint.text_width(name, size) for _, name in KEYS)
    return width + 3 * size <= columns and len(KEYS) * paint.line_height(size) + size <= 0.9 * rows
