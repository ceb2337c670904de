"""Many small pictures on one, in named rows: to judge a folder of faces, or drawn data, by eye.

`fl-client data check --sheet` and `simulation.contact_sheet` call it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import DeviceError
from common.files import write_atomic

Picture = NDArray[np.uint8]
"""(H, W) grey or (H, W, 3) blue-green-red, uint8."""

Colour = tuple[int, int, int]

_FRAME = 3


@dataclass(frozen=True)
class Layout:
    """How a sheet is laid out, in pixels.

    Attributes:
        columns: tiles in one line; a row with more goes on in the next line.
        tile: side of a square tile.
        margin: room for the names at the left.
    """

    columns: int = 12
    tile: int = 72
    margin: int = 92

    @property
    def width(self) -> int:
        return self.margin + self.columns * self.tile


@dataclass(frozen=True)
class Row:
    """One named row.

    Attributes:
        name: one or more lines of plain letters.
        tiles: pictures; square ones of another size are fitted to the tile.
        frames: (number of the tile, colour): tiles that get a coloured frame.
    """

    name: str
    tiles: Sequence[Picture]
    frames: Sequence[tuple[int, Colour]] = ()


def contact_sheet(rows: Sequence[Row], layout: Layout | None = None, notes: Sequence[tuple[str, Colour]] = ()) -> Picture:
    """The rows below each other on white, then the notes, each with its colour: (H, W, 3) uint8 blue-green-red."""
    layout = layout or Layout()
    parts = [_row(row, layout) for row in rows] + [_note(text, colour, layout) for text, colour in notes]
    return np.vstack(parts or [np.full((1, layout.width, 3), 255, np.uint8)])


def sized(picture: Picture, width: int, height: int) -> Picture:
    """The picture reduced or enlarged to (height, width)."""
    how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), dtype=np.uint8)


def write_sheet(path: Path, sheet: Picture, mode: int = 0o644) -> None:
    """Write the sheet as a .png file, whole or not at all.

    Raises:
        DeviceError: the folder does not exist or cannot be written.
    """
    if not path.parent.is_dir():
        raise DeviceError(f"{path} cannot be written: its folder does not exist.")
    content = BytesIO()
    Image.fromarray(np.ascontiguousarray(sheet[:, :, ::-1])).save(content, "png", optimize=True)
    try:
        write_atomic(path, content.getvalue(), mode)
    except OSError as error:
        raise DeviceError(f"{path} cannot be written: {error.strerror}.") from error


def _row(row: Row, layout: Layout) -> Picture:
    lines = max(1, -(-len(row.tiles) // layout.columns))
    canvas = np.full((lines * layout.tile, layout.width, 3), 255, np.uint8)
    for number, text in enumerate(row.name.split("\n")):
        place = (6, 20 + 18 * number)
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    frames = dict(row.frames)
    for number, picture in enumerate(row.tiles):
        line, column = divmod(number, layout.columns)
        top, left = line * layout.tile, layout.margin + column * layout.tile
        tile = sized(picture, layout.tile, layout.tile)
        canvas[top : top + layout.tile, left : left + layout.tile] = tile if tile.ndim == 3 else tile[:, :, None]
        if colour := frames.get(number):
            corner = (left + layout.tile - 2, top + layout.tile - 2)
            cv2.rectangle(canvas, (left + 1, top + 1), corner, colour, _FRAME)
    return canvas


def _note(text: str, colour: Colour, layout: Layout) -> Picture:
    line = np.full((26, layout.width, 3), 255, np.uint8)
    cv2.rectangle(line, (8, 6), (22, 20), colour, _FRAME)
    cv2.putText(line, text, (32, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return line
