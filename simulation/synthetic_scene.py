"""A drawn room with drawn people whose emotions change: input for the camera loop where no camera is, with its truth.

`render_scene` gives frames, `write_scene_video` an .mp4 for `fl-client webcam --source`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError, DeviceError
from fl_client.webcam.native_files import utf8_name
from fl_client.webcam.quiet import native_stderr_silenced
from models.preprocess import Box
from simulation.drawing import sketch_person
from simulation.expressions import ACTION_UNITS, PROTOTYPES, Expression, prototype
from simulation.people import Person, draw_person
from simulation.sketch import Colour, View
from simulation.synthetic_faces import FRAMING

_SMALLEST, _LARGEST = 100, 220
_HOLD, _CHANGE = 2.0, 0.5
_EYES_CLOSED = ACTION_UNITS.index(43)
_ROOM, _ACTOR, _GRAIN = 5, 6, 7


@dataclass(frozen=True)
class SceneFace:
    """What is true of one face in one frame.

    Attributes:
        box: the square that holds it as a training crop would: x, y, width, height in pixels.
        emotion: what it shows, or while it changes what it shows most.
        settled: False while it changes.
    """

    box: Box
    emotion: str
    settled: bool


@dataclass(frozen=True)
class SceneFrame:
    """One picture, (H, W, 3) uint8 BGR, and the faces in it."""

    picture: NDArray[np.uint8]
    faces: tuple[SceneFace, ...]


def render_scene(
    frames: int,
    *,
    seed: int,
    people: int = 2,
    size: tuple[int, int] = (480, 640),
    fps: float = 15.0,
    emotions: tuple[str, ...] = EMOTIONS_7,
) -> Iterator[SceneFrame]:
    """Draw a scene frame by frame, about 20 ms each at the default size.

    Everybody sways, blinks, looks around and shows one emotion after another, 2 seconds each, in an order of their own.

    Args:
        frames: how many.
        seed: of everything drawn; another seed draws other people in another room.
        people: how many people stand side by side.
        size: rows and columns of the picture.
        fps: frames per second.
        emotions: what they show.

    Raises:
        ConfigError: a number is out of range, an emotion is unknown, or so many people do not fit.
    """
    rows, columns = size
    if frames < 0 or seed < 0 or people < 0 or not fps > 0:
        raise ConfigError(
            f"A scene needs frames, seed and people of 0 or more and fps above 0, not {(frames, seed, people, fps)}."
        )
    if not emotions or not set(emotions) <= set(EMOTIONS_8):
        raise ConfigError(f"The emotions of a scene must be some of {', '.join(EMOTIONS_8)}, not {emotions}.")
    widest = min(_LARGEST, 0.46 * rows, 0.72 * columns / max(people, 1))
    if people and widest < _SMALLEST:
        raise ConfigError(f"{people} people do not fit into {columns}x{rows} pixels: ask for fewer, or for a larger picture.")
    return _frames(frames, seed, people, size, fps, emotions, widest)


def write_scene_video(
    path: Path,
    frames: int,
    *,
    seed: int,
    people: int = 2,
    size: tuple[int, int] = (480, 640),
    fps: float = 15.0,
) -> list[tuple[SceneFace, ...]]:
    """Write `render_scene` to an .mp4 file, and return the faces of each frame.

    Raises:
        ConfigError: as `render_scene`.
        DeviceError: the file cannot be written, or not of that name.
    """
    scene = render_scene(frames, seed=seed, people=people, size=size, fps=fps)
    name = utf8_name(path)
    if not path.parent.is_dir() or path.is_dir():
        raise DeviceError(f"The video {path} cannot be written: give a file name in a folder that exists.")
    with native_stderr_silenced():
        writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), fps, (size[1], size[0]))
        if not writer.isOpened():
            raise DeviceError(f"The video {path} cannot be written: use a name that ends in .mp4 in a folder you may write to.")
        truth = []
        try:
            for frame in scene:
                writer.write(frame.picture)
                truth.append(frame.faces)
        finally:
            writer.release()
    return truth


def _frames(
    frames: int,
    seed: int,
    people: int,
    size: tuple[int, int],
    fps: float,
    emotions: tuple[str, ...],
    widest: float,
) -> Iterator[SceneFrame]:
    rows, columns = size
    room = _room(rows, columns, np.random.default_rng([seed, _ROOM]))
    cast = [_Actor(seed, number, emotions, widest) for number in range(people)]
    grain = np.random.default_rng([seed, _GRAIN])
    for index in range(frames):
        picture = room.copy()
        faces = tuple(
            actor.step_in(picture, columns * (number + 0.5) / people, 0.44 * rows, index / fps)
            for number, actor in enumerate(cast)
        )
        noise = grain.integers(-5, 6, (rows, columns, 1), np.int16)
        yield SceneFrame(np.clip(picture + noise, 0, 255).astype(np.uint8), faces)


class _Actor:
    """One person of a scene: where they are and what they show at any time."""

    def __init__(self, seed: int, number: int, emotions: tuple[str, ...], widest: float) -> None:
        rng = np.random.default_rng([seed, _ACTOR, number])
        self._person: Person = draw_person(seed, number)
        self._side = float(rng.uniform(max(_SMALLEST, 0.78 * widest), widest))
        self._light = float(rng.uniform(-0.4, 0.4))
        self._waves = rng.uniform(0.07, 0.2, 8), rng.uniform(0, 2 * math.pi, 8)
        self._blink_every = float(rng.uniform(2.5, 4.5))
        self._order = [emotions[i] for i in rng.permutation(len(emotions))]
        self._shown = [prototype(name, int(rng.integers(len(PROTOTYPES[name]))), int(rng.integers(2))) for name in self._order]

    def step_in(self, picture: NDArray[np.uint8], x: float, y: float, time: float) -> SceneFace:
        """Draw the person into `picture` around (x, y) as they are at `time` in seconds."""
        rates, phases = self._waves
        wave = np.sin(2 * math.pi * rates * time + phases).tolist()
        side = self._side * (1 + 0.04 * wave[0])
        x += 0.16 * self._side * wave[1]
        y += 0.12 * self._side * wave[2]
        expression, emotion, settled = self._face(time, (0.35 * wave[3], 0.25 * wave[4]))
        unit = FRAMING.unit * side
        view = View(x, y, unit, math.radians(9 * wave[5]), math.radians(4 * wave[6]), math.radians(5 * wave[7]))
        self._paint(picture, expression, view)
        left, top = x - side / 2, y - FRAMING.eyes * side
        return SceneFace((round(left), round(top), round(side), round(side)), emotion, settled)

    def _face(self, time: float, gaze: tuple[float, float]) -> tuple[Expression, str, bool]:
        """The expression at `time`: the last part of each emotion's time is a smooth change to the next one."""
        turn, within = divmod(time, _HOLD)
        now, after = int(turn) % len(self._order), (int(turn) + 1) % len(self._order)
        part = max((within - (_HOLD - _CHANGE)) / _CHANGE, 0.0)
        part = part * part * (3 - 2 * part)
        units = (1 - part) * self._shown[now] + part * self._shown[after]
        if time % self._blink_every < 0.14:
            units[_EYES_CLOSED] = 1.0
        return Expression(units, gaze), self._order[after if part > 0.5 else now], part == 0.0

    def _paint(self, picture: NDArray[np.uint8], expression: Expression, view: View) -> None:
        rows, columns = picture.shape[:2]
        left, right = max(int(view.x - 2.8 * view.scale), 0), min(int(view.x + 2.8 * view.scale), columns)
        top = max(int(view.y - 2.4 * view.scale), 0)
        part = np.ascontiguousarray(picture[top:rows, left:right])
        moved = View(view.x - left, view.y - top, view.scale, view.yaw, view.pitch, view.roll)
        sketch_person(self._person, expression, self._light).paint(part, moved, steps=12)
        picture[top:rows, left:right] = part


def _room(rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A wall with a window, a picture and a shelf of books, out of focus."""
    wall: Colour = tuple(rng.uniform(120, 190, 3).tolist())
    room = np.empty((rows, columns, 3), np.float32)
    room[:] = wall
    room *= (1.1 - 0.3 * np.linspace(0, 1, rows, dtype=np.float32))[:, None, None]
    drawn = np.clip(room, 0, 255).astype(np.uint8)

    def box(x: float, y: float, width: float, height: float, colour: Colour) -> None:
        corner = int(x * columns), int(y * rows)
        cv2.rectangle(drawn, corner, (int((x + width) * columns), int((y + height) * rows)), colour, -1)

    x = float(rng.uniform(0.03, 0.1))
    box(x, 0.06, 0.26, 0.5, (235.0, 235.0, 235.0))
    box(x + 0.015, 0.08, 0.11, 0.46, (240.0, 215.0, 180.0))
    box(x + 0.135, 0.08, 0.11, 0.46, (245.0, 222.0, 190.0))
    box(0.5, 0.1, 0.14, 0.24, (40.0, 60.0, 80.0))
    box(0.515, 0.12, 0.11, 0.2, tuple(rng.uniform(60, 220, 3).tolist()))
    box(0.72, 0.36, 0.26, 0.03, (50.0, 75.0, 110.0))
    at = 0.735
    while at < 0.95:
        width, height = float(rng.uniform(0.012, 0.03)), float(rng.uniform(0.12, 0.2))
        box(at, 0.36 - height, width, height, tuple(rng.uniform(30, 200, 3).tolist()))
        at += width + 0.004
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), rows / 160), dtype=np.uint8)
