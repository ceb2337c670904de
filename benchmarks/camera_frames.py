"""Frames of 640x480 with real faces whose places are known, for `benchmarks.webcam`: drawn bodies that wear real face crops.

The crops come from the user's own data and stay in memory. Rooms, bodies and light are drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.detector.scenes import drawn_background
from models.preprocess import Box
from simulation.synthetic_scene import render_scene

WIDTH, HEIGHT, FPS = 640, 480, 30
SMALLEST, LARGEST = 60, 220
SPRITE = 128
"""Side of the face within a sprite, in pixels."""


@dataclass(frozen=True)
class Placed:
    """A face of a frame: the square of its training crop, and its row in the faces that were given."""

    box: Box
    row: int


@dataclass(frozen=True)
class TruthFrame:
    """(480, 640, 3) uint8 BGR, and what is true of it."""

    picture: NDArray[np.uint8]
    faces: tuple[Placed, ...]


@dataclass(frozen=True)
class _Sprite:
    """A head with shoulders: premultiplied colours and cover, and where the face's middle lies in it."""

    colours: NDArray[np.float32]
    cover: NDArray[np.float32]
    middle: tuple[float, float]


def stills(faces: NDArray[np.uint8], count: int, seed: int, dim: float = 1.0) -> Iterator[TruthFrame]:
    """Independent frames, each with 1 to 3 of the faces, in turn; `dim` below 1 darkens them as a bad light does."""
    rng = np.random.default_rng([seed, 11])
    row = 0
    for _ in range(count):
        picture = _room(rng)
        placed = []
        people = int(rng.integers(1, 4))
        for column in range(people):
            side = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(min(LARGEST, 0.8 * WIDTH / people)))))
            x = WIDTH * (column + 0.5) / people + float(rng.uniform(-0.06, 0.06)) * WIDTH / people
            y = float(rng.uniform(0.6 * side, min(0.75 * HEIGHT, HEIGHT - 0.6 * side)))
            box = _put(picture, _sprite(faces[row % len(faces)], rng), x, y, side, float(rng.normal(0, 5)))
            placed.append(Placed(box, row % len(faces)))
            row += 1
        yield TruthFrame(_shot(picture, rng, dim), tuple(placed))


def film(faces: NDArray[np.uint8], frames: int, seed: int) -> Iterator[TruthFrame]:
    """A video in which people sway and come nearer; every 60 frames the cast changes, between 1 and 3 people."""
    rng = np.random.default_rng([seed, 12])
    room, cast = _room(rng), _cast(faces, 0, rng)
    for index in range(frames):
        if index and index % 60 == 0:
            room, cast = _room(rng), _cast(faces, index // 20, rng)
        picture = room.copy()
        placed = tuple(actor.step_in(picture, index / FPS) for actor in cast)
        yield TruthFrame(_shot(picture, rng, 1.0), placed)


def faceless(count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Frames without faces: drawn rooms and drawn clutter, half each."""
    rng = np.random.default_rng([seed, 13])
    for index in range(count):
        yield _shot(_room(rng) if index % 2 else _clutter(rng), rng, 1.0)


class _Actor:
    def __init__(self, sprite: _Sprite, row: int, x: float, y: float, side: float, rng: np.random.Generator) -> None:
        self._sprite, self._row, self._at, self._side = sprite, row, (x, y), side
        self._waves = rng.uniform(0.1, 0.45, 4), rng.uniform(0, 2 * np.pi, 4)

    def step_in(self, picture: NDArray[np.uint8], time: float) -> Placed:
        rates, phases = self._waves
        wave = np.sin(2 * np.pi * rates * time + phases)
        side = self._side * (1 + 0.08 * wave[0])
        x, y = self._at[0] + 0.25 * self._side * wave[1], self._at[1] + 0.12 * self._side * wave[2]
        return Placed(_put(picture, self._sprite, x, y, side, 6 * wave[3]), self._row)


def _cast(faces: NDArray[np.uint8], first: int, rng: np.random.Generator) -> list[_Actor]:
    people = int(rng.integers(1, 4))
    cast = []
    for column in range(people):
        side = float(rng.uniform(80, min(200, 0.6 * WIDTH / people)))
        row = (first + column) % len(faces)
        x, y = WIDTH * (column + 0.5) / people, float(rng.uniform(0.8 * side, HEIGHT - 1.0 * side))
        cast.append(_Actor(_sprite(faces[row], rng), row, x, y, side, rng))
    return cast


def _sprite(face: NDArray[np.uint8], rng: np.random.Generator) -> _Sprite:
    """A face crop as it is, or on a drawn head with hair, ears, neck and shoulders, soft at the edges."""
    side = SPRITE
    canvas = np.zeros((round(3.0 * side), round(3.4 * side), 3), dtype=np.float32)
    cover = np.zeros(canvas.shape[:2], dtype=np.float32)
    middle = canvas.shape[1] / 2, 1.15 * side
    tint = np.array([rng.uniform(0.7, 0.85), rng.uniform(0.82, 0.92), 1.0]) * rng.uniform(1.0, 1.1)
    skin = np.clip(np.median(face) * tint, 0, 255)

    def ellipse(dx: float, dy: float, wide: float, high: float, colour: Any) -> None:
        centre = (middle[0] + dx * side, middle[1] + dy * side)
        for target, shade in ((canvas, [float(value) for value in colour]), (cover, [1.0])):
            cv2.ellipse(target, (centre, (2 * wide * side, 2 * high * side), 0.0), shade, -1, cv2.LINE_AA)

    as_it_is = rng.random() < 0.3
    hair, clothes = rng.uniform(10, 90) * rng.uniform(0.6, 1.4, 3), rng.uniform(20, 220, 3)
    top, left = round(middle[1] - side / 2), round(middle[0] - side / 2)
    square = np.s_[top : top + side, left : left + side]
    oval = np.ones((side, side), dtype=np.float32)
    if as_it_is:
        cover[square] = 1
    else:
        ellipse(0, 1.75, rng.uniform(1.1, 1.5), rng.uniform(0.8, 0.95), clothes)
        ellipse(0, 0.75, rng.uniform(0.28, 0.38), 0.4, skin * 0.8)
        if rng.random() < 0.85:
            ellipse(0, rng.uniform(-0.25, 0.0), rng.uniform(0.62, 0.8), rng.uniform(0.75, 1.0), hair)
        for ear in (-1, 1):
            ellipse(0.54 * ear, 0.0, 0.08, 0.16, skin * 0.9)
        ellipse(0, 0.02, rng.uniform(0.52, 0.58), rng.uniform(0.64, 0.72), skin)
        oval = np.zeros_like(oval)
        cv2.ellipse(oval, ((side / 2, side / 2), (0.94 * side, 1.02 * side), 0.0), 1.0, -1)
        oval = np.asarray(cv2.GaussianBlur(oval, (0, 0), 0.035 * side), dtype=np.float32)
    patch = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)[:, :, None] * tint
    canvas[square] += oval[:, :, None] * (patch - canvas[square])
    canvas, cover = (np.asarray(cv2.GaussianBlur(part, (0, 0), 0.8), dtype=np.float32) for part in (canvas, cover))
    return _Sprite(np.clip(canvas, 0, 255) * cover[:, :, None], cover, (left + side / 2, top + side / 2))


def _put(picture: NDArray[np.uint8], sprite: _Sprite, x: float, y: float, side: float, turn: float) -> Box:
    """Paint a sprite so that its face's middle comes to (x, y), `side` pixels wide; the face's box."""
    scale = side / SPRITE
    matrix = cv2.getRotationMatrix2D(sprite.middle, turn, scale)
    matrix[:, 2] += np.array((x - sprite.middle[0], y - sprite.middle[1]))
    how = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
    colours = cv2.warpAffine(sprite.colours, matrix, (WIDTH, HEIGHT), flags=how)
    cover = cv2.warpAffine(sprite.cover, matrix, (WIDTH, HEIGHT), flags=how)[:, :, None]
    picture[:] = np.clip(picture * (1 - cover) + colours, 0, 255).astype(np.uint8)
    whole = round(side)
    return round(x - whole / 2), round(y - whole / 2), whole, whole


def _room(rng: np.random.Generator) -> NDArray[np.uint8]:
    return next(render_scene(1, seed=int(rng.integers(2**31)), people=0)).picture


def _clutter(rng: np.random.Generator) -> NDArray[np.uint8]:
    grey = drawn_background(rng, (HEIGHT, WIDTH)).astype(np.float32)[:, :, None]
    return np.clip(grey * rng.uniform(0.6, 1.2, 3), 0, 255).astype(np.uint8)


def _shot(picture: NDArray[np.uint8], rng: np.random.Generator, dim: float) -> NDArray[np.uint8]:
    """What a camera makes of it: less light, and grain that does not get less with it."""
    grain = rng.normal(0, 3.0, (HEIGHT, WIDTH, 1)).astype(np.float32)
    return np.asarray(np.clip(picture.astype(np.float32) * dim + grain, 0, 255), dtype=np.uint8)
