"""Look at the pictures again, in a grid, with the keyboard: delete, relabel, take back. Pure but for the album it edits.

The window shows `canvas` and hands each key to `press`.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_8
from common.errors import DataError
from fl_client.capture.album import Album, Stored
from fl_client.capture.consent import NotGiven
from fl_client.webcam import paint
from fl_client.webcam.overlay import COLOURS
from fl_client.webcam.paint import Area, Canvas
from models.faces.contact_sheet import sized
from models.faces.picture import Unusable, read_grey
from models.preprocess import Preprocessing

COLUMNS, ROWS = 8, 4
TILE, STRIP = 96, 18
"""Pixels of a picture's side, and of the strip with its label under it."""
KEYS = "[a d w s] move   [n p] page   [x] delete   [u] take back   [1-8] relabel   [q] back"
_HEAD, _FOOT = 44, 56
_MOVES = {"a": -1, "d": 1, "w": -COLUMNS, "s": COLUMNS, "n": COLUMNS * ROWS, "p": -COLUMNS * ROWS}


@dataclass
class Review:
    """The grid and its cursor.

    Attributes:
        at: number of the picture under the cursor.
    """

    album: Album
    at: int = 0
    _pictures: list[Stored] = field(default_factory=list)
    _deleted: list[tuple[Stored, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pictures = self.album.pictures()

    @property
    def pictures(self) -> tuple[Stored, ...]:
        """All pictures of the folder, by emotion."""
        return tuple(self._pictures)

    def press(self, key: str) -> str:
        """What a key does, told in one line: a d w s move, n p page, x deletes, u takes a deletion back, 1-8 relabel.

        Raises:
            NotGiven: the yes under which the pictures were opened is gone; what was deleted cannot be taken back any more.
        """
        if not self.album.stands():
            self._deleted.clear()
            raise NotGiven
        key = key.lower()
        if key in _MOVES and self._pictures:
            self.at = min(max(self.at + _MOVES[key], 0), len(self._pictures) - 1)
            return ""
        if key in ("x", "\x7f", "\x08"):
            return self._delete()
        if key == "u":
            return self._take_back()
        if key.isdecimal() and 1 <= int(key) <= len(EMOTIONS_8):
            return self._relabel(EMOTIONS_8[int(key) - 1])
        return ""

    def canvas(self, said: str = "") -> Canvas:
        """(H, W, 3) uint8: the page that the cursor is on, with the line that `press` gave back."""
        canvas = np.full((_HEAD + ROWS * (TILE + STRIP) + _FOOT, COLUMNS * TILE, 3), 32, np.uint8)
        page = self.at // (COLUMNS * ROWS)
        shown = self._pictures[page * COLUMNS * ROWS : (page + 1) * COLUMNS * ROWS]
        for number, stored in enumerate(shown):
            row, column = divmod(number, COLUMNS)
            self._draw_tile(canvas, stored, column * TILE, _HEAD + row * (TILE + STRIP), number == self.at % (COLUMNS * ROWS))
        title = f"{len(self._pictures)} pictures, page {page + 1} of {max(1, -(-len(self._pictures) // (COLUMNS * ROWS)))}"
        if self._pictures:
            title += f": {self._pictures[self.at].name}"
        _line(canvas, title, 12, 18)
        _line(canvas, said, canvas.shape[0] - _FOOT + 6, 16)
        _line(canvas, KEYS, canvas.shape[0] - 26, 15)
        return canvas

    def _delete(self) -> str:
        if not self._pictures:
            return "There is no picture."
        stored = self._pictures.pop(self.at)
        with suppress(OSError):
            self._deleted.append((stored, stored.path.read_bytes()))
        self.album.delete(stored)
        self.at = min(self.at, max(0, len(self._pictures) - 1))
        return f"Deleted {stored.name}; u takes it back."

    def _take_back(self) -> str:
        if not self._deleted:
            return "Nothing was deleted here."
        stored, content = self._deleted[-1]
        back = self.album.put_back(stored, content)
        self._deleted.pop()
        self._pictures = self.album.pictures()
        self.at = next((number for number, one in enumerate(self._pictures) if one == back), 0)
        return f"{stored.name} is back{'' if back == stored else f' as {back.name}'}."

    def _relabel(self, emotion: str) -> str:
        if not self._pictures or self._pictures[self.at].emotion == emotion:
            return ""
        before = self._pictures[self.at]
        try:
            moved = self.album.relabel(before, emotion)
        except DataError as error:
            self._pictures = self.album.pictures()
            self.at = min(self.at, max(0, len(self._pictures) - 1))
            return str(error)
        self._pictures = self.album.pictures()
        self.at = min(self.at, len(self._pictures) - 1)
        return f"{before.name} is now {moved.name}."

    def _draw_tile(self, canvas: Canvas, stored: Stored, x: int, y: int, chosen: bool) -> None:
        tile = _thumbnail(stored.path)
        canvas[y + 2 : y + TILE - 2, x + 2 : x + TILE - 2] = tile[:, :, None]
        colour = COLOURS.get(stored.emotion, paint.WHITE)
        strip = Area(x + 2, y + TILE - 2, TILE - 4, STRIP - 2)
        paint.fill(canvas, strip, colour)
        paint.write(canvas, stored.emotion, x + 6, y + TILE - 2, 12, paint.readable_on(colour))
        if chosen:
            cv2.rectangle(canvas, (x, y), (x + TILE - 1, y + TILE + STRIP - 3), paint.WHITE, 3)


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    side = TILE - 4
    try:
        return sized(Preprocessing().whole(read_grey(path)), side, side)
    except Unusable:
        return np.full((side, side), 90, np.uint8)


def _line(canvas: Canvas, text: str, y: int, size: int) -> None:
    text, size = paint.fitted(text, size, canvas.shape[1] - 16)
    paint.write(canvas, text, 8, y, size, paint.WHITE)
