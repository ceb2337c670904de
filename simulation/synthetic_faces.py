"""The embedded data set: drawn grey faces of made-up people, so that demo, tests and simulations need no download.

`draw_faces` is what `simulation.population` calls; `FRAMING` is where a face lies in a crop, also in a drawn scene.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError
from models.faces.faceset import FaceSet, one_hot
from simulation.drawing import sketch_person
from simulation.expressions import draw_expression
from simulation.people import Person, draw_person
from simulation.sketch import View

_CHUNK = 128
_FACE, _ORDER, _NOISE = 2, 3, 4


@dataclass(frozen=True)
class Framing:
    """Where a face that looks straight ahead lies in its square crop, as shares of the crop's side.

    Attributes:
        unit: distance between the pupils.
        eyes: height of the eyes, from the top.
    """

    unit: float = 0.385
    eyes: float = 0.375


FRAMING = Framing()
"""That of FER2013's crops and of OpenCV's frontal-face boxes (measured on both)."""


@dataclass(frozen=True)
class Conditions:
    """How much pictures of one and the same face vary; none of it depends on the emotion.

    Attributes:
        yaw, pitch, roll: standard deviations in degrees; turns stop at 2.2 of them.
        shift: standard deviation of the crop's place, as a share of its side; scale: of the logarithm of its size.
        blur: largest Gaussian blur, in pixels of a 48-pixel crop.
        noise: largest standard deviation of the sensor's noise, in grey levels.
    """

    yaw: float = 10.0
    pitch: float = 5.0
    roll: float = 5.0
    shift: float = 0.024
    scale: float = 0.06
    blur: float = 0.9
    noise: float = 8.0


def draw_faces(
    count: int,
    *,
    seed: int,
    size: int = 48,
    people: int | None = None,
    classes: tuple[str, ...] = EMOTIONS_7,
    conditions: Conditions | None = None,
) -> FaceSet:
    """Draw grey face crops, about 2 ms each on one core.

    Face i depends on `seed`, `people`, `classes` and i alone, so a longer set starts with the shorter one. People are
    numbered from 0; another seed draws other people, which makes a test set of unseen people. Emotions and people are
    both spread evenly and independently of each other, of pose and of light.

    Args:
        count: number of faces.
        seed: of everything drawn, 0 or more.
        size: side of the crops in pixels, 16..512.
        people: how many people there are; by default 40.
        classes: emotions to draw, in the order of the labels.

    Returns:
        One-hot labels and, in `people`, who each face belongs to.

    Raises:
        ConfigError: a number is out of range, or an emotion is unknown.
    """
    people = 40 if people is None else people
    _check(count, seed, size, people, classes)
    conditions = conditions or Conditions()
    labels = _spread(count, len(classes), [seed, _ORDER, 0])
    who = _spread(count, people, [seed, _ORDER, 1])
    known: dict[int, Person] = {}
    images = np.empty((count, size, size), np.uint8)
    for first in range(0, count, _CHUNK):
        rows = range(first, min(first + _CHUNK, count))
        film = np.empty((len(rows), size, size), np.uint8)
        light = np.empty((len(rows), 6), np.float32)
        for at, row in enumerate(rows):
            number = int(who[row])
            if number not in known:
                known[number] = draw_person(seed, number)
            rng = np.random.default_rng([seed, _FACE, row])
            film[at], light[at] = _photograph(known[number], classes, int(labels[row]), rng, size, conditions)
        images[first : first + len(rows)] = _develop(film, light, np.random.default_rng([seed, _NOISE, first]))
    return FaceSet(images, one_hot(labels, len(classes)), classes, who.astype(np.int32))


def _check(count: int, seed: int, size: int, people: int, classes: tuple[str, ...]) -> None:
    if count < 0:
        raise ConfigError(f"The number of faces to draw must be 0 or more, not {count}.")
    if seed < 0:
        raise ConfigError(f"The seed must be 0 or more, not {seed}.")
    if not 16 <= size <= 512:
        raise ConfigError(f"The side of drawn faces must be 16 to 512 pixels, not {size}.")
    if people < 1:
        raise ConfigError(f"At least one person must be drawn, not {people}.")
    if not classes or len(set(classes)) != len(classes) or not set(classes) <= set(EMOTIONS_8):
        raise ConfigError(f"The emotions to draw must be different ones of {', '.join(EMOTIONS_8)}, not {classes}.")


def _spread(count: int, kinds: int, seed: list[int]) -> NDArray[np.int64]:
    """`count` numbers below `kinds`: each run of `kinds` holds every number once, in random order."""
    runs = -(-count // kinds)
    table = np.tile(np.arange(kinds), (runs, 1))
    return np.random.default_rng(seed).permuted(table, axis=1).reshape(-1)[:count]


def _photograph(
    person: Person,
    classes: tuple[str, ...],
    label: int,
    rng: np.random.Generator,
    size: int,
    conditions: Conditions,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The crop before its exposure, and the exposure: gain, offset, slope to the right and down, grain, contrast curve."""
    c = conditions
    normal = rng.standard_normal(8).clip(-2.2, 2.2).tolist()
    even = rng.random(8).tolist()
    expression = draw_expression(classes[label], rng, classes)
    yaw, pitch, roll = (math.radians(sd * z) for sd, z in zip((c.yaw, c.pitch, c.roll), normal, strict=False))
    side = size * 3 // 2 if size < 128 else size
    unit = FRAMING.unit * side * math.exp(c.scale * normal[3])
    x = side * (0.5 + c.shift * normal[4] - 0.16 * math.sin(yaw))
    y = side * (FRAMING.eyes + c.shift * normal[5] - 0.16 * math.sin(pitch))
    canvas = _backdrop(side, even[0], normal[6], rng)
    sketch_person(person, expression, 0.45 * normal[7]).paint(canvas, View(x, y, unit, yaw, pitch, roll), steps=4)
    sigma = c.blur * even[1] ** 2 * side / 48
    if sigma > 0.3:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), sigma), dtype=np.uint8)
    if side != size:
        canvas = np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    slope, angle = 55 * even[2], 2 * math.pi * even[3]
    gain, offset, grain, curve = 0.75 + 0.4 * even[4], 45 * even[5] - 5, 1 + c.noise * even[6] ** 2, 0.7 + 0.5 * even[7]
    return canvas, np.array((gain, offset, slope * math.cos(angle), slope * math.sin(angle), grain, curve), np.float32)


def _backdrop(side: int, level: float, tilt: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What is behind the head: a grey wall that brightens to one side, with one blurred thing on it."""
    ramp = 25 + 205 * level + (20 * tilt / side) * np.arange(-side, side, 2)
    canvas = np.repeat(ramp.clip(0, 255).astype(np.uint8)[None], side, 0)
    x0, width, shade = rng.random(3).tolist()
    left = int(side * (1.4 * x0 - 0.2))
    cv2.rectangle(canvas, (left, 0), (left + int(side * 0.5 * width), side), (255 * shade,), -1)
    return canvas


def _develop(film: NDArray[np.uint8], exposure: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply each crop's exposure and the sensor's noise to (N, S, S) crops."""
    n, size, _ = film.shape
    gain, offset, right, down, grain, curve = (column[:, None, None] for column in exposure.T)
    at = np.linspace(-1, 1, size, dtype=np.float32)
    picture = 255 * (film.astype(np.float32) / 255) ** curve * gain + offset
    picture *= 1 + (right * at[None, None, :] + down * at[None, :, None]) / 200
    picture += grain * rng.standard_normal((n, size, size), np.float32)
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)
