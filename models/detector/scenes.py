"""Grey scenes with faces whose places are known: real face crops put on drawn heads before backgrounds that hold none.

`training.py` learns from them. Among the faces stand patches of the same outline that are none, so that the outline says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
"""(H, W) uint8."""

Soft = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A picture and its faces.

    Attributes:
        picture: (H, W) uint8.
        faces: (N, 3) float32: x and y of the middle and side of each training-crop square, in pixels.
    """

    picture: Grey
    faces: Soft


@dataclass(frozen=True)
class SceneSettings:
    """What scenes look like.

    Attributes:
        size: side of the square picture in pixels.
        least, most: a face's side in pixels, drawn uniformly in its logarithm.
        slots: at most so many patches are put into a scene, faces or none.
        part_faces: part of the patches that are faces.
        part_mined: part of the scenes before a section that the network took for a face, once there are any.
        part_dim: part of the scenes in bad light, which may leave a tenth of it.
    """

    size: int = 128
    least: float = 10.0
    most: float = 150.0
    slots: int = 4
    part_faces: float = 0.62
    part_mined: float = 0.3
    part_dim: float = 0.15


class SceneMaker:
    """Makes scenes without end from face crops and backgrounds.

    Args:
        faces: (N, 48, 48) uint8 training crops.
        backgrounds: (H, W) uint8 pictures without faces, at least as large as a scene.

    Attributes:
        mined: backgrounds that deceived the network; whoever trains it adds to them.
    """

    def __init__(self, faces: Grey, backgrounds: Sequence[Grey], settings: SceneSettings, rng: np.random.Generator) -> None:
        self._faces, self._backgrounds, self._settings, self._rng = faces, backgrounds, settings, rng
        self.mined: Sequence[Grey] = ()

    def scene(self) -> Scene:
        """One more scene."""
        rng, size = self._rng, self._settings.size
        canvas = np.ascontiguousarray(self._background(), dtype=np.float32)
        placed: list[tuple[float, float, float]] = []
        faces: list[tuple[float, float, float]] = []
        for _ in range(int(rng.integers(0, self._settings.slots + 1))):
            side = float(np.exp(rng.uniform(np.log(self._settings.least), np.log(self._settings.most))))
            x, y = (float(value) for value in rng.uniform(min(0.3 * side, size / 2), max(size - 0.3 * side, size / 2), 2))
            if any(max(abs(x - ox), abs(y - oy)) < 0.6 * (side + other) for ox, oy, other in placed):
                continue
            is_face = rng.random() < self._settings.part_faces
            patch = self._any_face() if is_face else self._no_face()
            self._place(canvas, patch.astype(np.float32), x, y, side)
            placed.append((x, y, side))
            if is_face:
                faces.append((x, y, side))
        return Scene(self._finished(canvas), np.asarray(faces, dtype=np.float32).reshape(-1, 3))

    def _background(self) -> Grey:
        rng, size = self._rng, self._settings.size
        mined = bool(self.mined) and rng.random() < self._settings.part_mined
        grounds = self.mined if mined else self._backgrounds
        ground = grounds[int(rng.integers(len(grounds)))]
        side = int(rng.integers(size, min(ground.shape) + 1)) if rng.random() < 0.7 and not mined else size
        top, left = (int(rng.integers(0, extent - side + 1)) for extent in ground.shape)
        part = ground[top : top + side, left : left + side]
        if side != size:
            part = np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        part = part[:, ::-1] if rng.random() < 0.5 else part
        return np.asarray(part.T if rng.random() < 0.2 else part)

    def _any_face(self) -> Grey:
        face = self._faces[self._rng.integers(len(self._faces))]
        face = face[:, ::-1] if self._rng.random() < 0.5 else face
        if self._rng.random() < 0.12:
            face = face.copy()
            wide, high = self._rng.integers(8, 22, 2)
            left, top = self._rng.integers(0, 48 - wide), self._rng.integers(0, 48 - high)
            face[top : top + high, left : left + wide] = self._rng.integers(0, 256)
        return np.asarray(face)

    def _no_face(self) -> Grey:
        """A patch of a face's size and kind of texture that is none."""
        rng = self._rng
        face = self._faces[rng.integers(len(self._faces))]
        kind = rng.integers(6)
        if kind == 0:
            cut = 16 if rng.random() < 0.5 else 24
            parts = [face[at : at + cut, to : to + cut] for at in range(0, 48, cut) for to in range(0, 48, cut)]
            order, row = rng.permutation(len(parts)), 48 // cut
            return np.vstack([np.hstack([parts[i] for i in order[at : at + row]]) for at in range(0, len(parts), row)])
        if kind == 1:
            return np.asarray(face[::-1])
        if kind == 2:
            cut = int(rng.integers(12, 22))
            left, top = rng.integers(0, 48 - cut, 2)
            return np.asarray(cv2.resize(face[top : top + cut, left : left + cut], (48, 48)), dtype=np.uint8)
        if kind == 3:
            noise = rng.integers(0, 256, (int(rng.integers(2, 12)),) * 2, dtype=np.uint8)
            return np.asarray(cv2.resize(noise, (48, 48), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        if kind == 4:
            return np.full((48, 48), int(face.mean()), dtype=np.uint8)
        ground = self._backgrounds[int(rng.integers(len(self._backgrounds)))]
        side = int(rng.integers(24, min(ground.shape)))
        top, left = (int(rng.integers(0, extent - side + 1)) for extent in ground.shape)
        part = ground[top : top + side, left : left + side]
        return np.asarray(cv2.resize(part, (48, 48), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def _place(self, canvas: Soft, patch: Soft, x: float, y: float, side: float) -> None:
        """Put a 48x48 patch on the canvas, turned a little: on a head with hair, neck and shoulders, as it is, or faded out."""
        rng = self._rng
        patch = (patch - patch.mean()) * rng.uniform(0.6, 1.2) + patch.mean() + rng.uniform(-30, 30)
        if rng.random() < 0.7:
            self._head(canvas, float(np.clip(np.median(patch), 10, 245)), x, y, side)
        turn = float(rng.normal(0, 8)) if rng.random() < 0.8 else float(rng.uniform(-25, 25))
        matrix = cv2.getRotationMatrix2D((23.5, 23.5), turn, side / 48)
        matrix[:, 2] += np.array((x - 24, y - 24))
        rows, columns = canvas.shape
        mask = _mask(rng)
        if rng.random() < 0.3:
            patch, mask = _faded(patch, rng)
            matrix[:, 2] -= matrix[:, :2] @ np.array((FADE, FADE))
        if side < 30:
            patch = np.asarray(cv2.GaussianBlur(patch, (0, 0), 0.4 * 48 / side), dtype=np.float32)
        moved = cv2.warpAffine(patch, matrix, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cover = cv2.warpAffine(mask, matrix, (columns, rows), flags=cv2.INTER_LINEAR)
        canvas += cover * (moved - canvas)

    def _head(self, canvas: Soft, skin: float, x: float, y: float, side: float) -> None:
        rng = self._rng

        def ellipse(dx: float, dy: float, wide: float, high: float, shade: float) -> None:
            middle = round(x + dx * side), round(y + dy * side)
            cv2.ellipse(canvas, (middle, (2 * wide * side, 2 * high * side), 0.0), shade, -1)

        hair, clothes = (float(value) for value in rng.uniform(5, 245, 2))
        if rng.random() < 0.8:
            ellipse(0, 1.55, rng.uniform(0.8, 1.5), rng.uniform(0.6, 0.9), clothes)
            ellipse(0, 0.7, rng.uniform(0.25, 0.4), 0.4, skin * rng.uniform(0.6, 1.0))
        if rng.random() < 0.8:
            ellipse(rng.normal(0, 0.03), rng.uniform(-0.3, 0.0), rng.uniform(0.6, 0.85), rng.uniform(0.7, 1.0), hair)
        ellipse(0, rng.uniform(-0.08, 0.02), rng.uniform(0.5, 0.6), rng.uniform(0.62, 0.75), skin)

    def _finished(self, canvas: Soft) -> Grey:
        """The light, the blur and the grain of a camera."""
        rng = self._rng
        canvas = (canvas - 128) * rng.uniform(0.5, 1.2) + 128 + rng.uniform(-40, 40)
        if rng.random() < 0.25:
            canvas = 255 * np.power(np.clip(canvas, 0, 255) / 255, rng.uniform(1.0, 3.0))
        if rng.random() < 0.3:
            canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 1.2)), dtype=np.float32)
        if rng.random() < self._settings.part_dim:
            dark = np.clip(canvas, 0, 255) * float(np.exp(rng.uniform(np.log(0.09), np.log(0.6))))
            return np.clip(dark + rng.normal(0, rng.uniform(0.3, 2), canvas.shape), 0, 255).astype(np.uint8)
        grainy = canvas + rng.normal(0, rng.uniform(0, 7), canvas.shape)
        return np.clip(grainy, 0, 255).astype(np.uint8)


def _mask(rng: np.random.Generator) -> Soft:
    """(48, 48) in [0, 1]: how much of the patch is seen. The whole square, or an oval; its edge hard or soft."""
    mask = np.zeros((48, 48), dtype=np.float32)
    if rng.random() < 0.35:
        edge = int(rng.integers(0, 3))
        mask[edge : 48 - edge, edge : 48 - edge] = 1
        return np.asarray(cv2.blur(mask, (2 * edge + 1,) * 2), dtype=np.float32) if edge else mask
    wide, high = rng.uniform(36, 47), rng.uniform(42, 50)
    cv2.ellipse(mask, ((23.5, 23.5 + float(rng.uniform(-1, 1))), (wide, high), 0.0), 1.0, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 3.5)), dtype=np.float32)


FADE = 24
"""Pixels by which a 48-pixel patch that fades out reaches further on each side."""


def _faded(patch: Soft, rng: np.random.Generator) -> tuple[Soft, Soft]:
    """The patch continued beyond its edges, ever more blurred, and how much of it is seen; both (96, 96)."""
    how = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_REPLICATE
    wide = cv2.copyMakeBorder(patch, FADE, FADE, FADE, FADE, how)
    smooth = np.asarray(cv2.GaussianBlur(wide, (0, 0), rng.uniform(2, 7)), dtype=np.float32)
    inside = np.zeros_like(smooth)
    inside[FADE + 2 : -FADE - 2, FADE + 2 : -FADE - 2] = 1
    inside = np.asarray(cv2.GaussianBlur(inside, (0, 0), 2), dtype=np.float32)
    mask = np.zeros_like(smooth)
    cv2.ellipse(mask, ((47.5, 47.5), tuple(rng.uniform(50, 84, 2)), 0.0), 1.0, -1)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(2, 8)), dtype=np.float32)
    return smooth + inside * (wide - smooth), mask


def drawn_background(rng: np.random.Generator, size: tuple[int, int] = (192, 256)) -> Grey:
    """A (H, W) picture without faces: clouds, light from a side, furniture-like shapes, stripes, dots and writing."""
    rows, columns = size
    ground = np.full(size, rng.uniform(20, 230), dtype=np.float32)
    for octave in range(int(rng.integers(1, 5))):
        cells = 3 * 2**octave
        noise = rng.normal(0, 60 / 1.5**octave, (cells, cells)).astype(np.float32)
        ground += cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)
    ground += np.linspace(-1, 1, columns, dtype=np.float32) * float(rng.uniform(-60, 60))
    for _ in range(int(rng.integers(0, 14))):
        _shape(ground, rng)
    if rng.random() < 0.3:
        period, turn = rng.uniform(3, 30), rng.uniform(0, np.pi)
        ys, xs = np.mgrid[:rows, :columns]
        ground += float(rng.uniform(10, 60)) * np.sin(2 * np.pi * (xs * np.cos(turn) + ys * np.sin(turn)) / period)
    ground += rng.normal(0, rng.uniform(0, 12), size)
    return np.clip(ground, 0, 255).astype(np.uint8)


def _shape(ground: Soft, rng: np.random.Generator) -> None:
    rows, columns = ground.shape
    x, y = int(rng.integers(-20, columns)), int(rng.integers(-20, rows))
    wide, high = (int(value) for value in rng.integers(4, 90, 2))
    shade, kind = float(rng.uniform(0, 255)), rng.integers(6)
    if kind == 0:
        cv2.rectangle(ground, (x, y), (x + wide, y + high), shade, -1)
    elif kind == 1:
        cv2.ellipse(ground, ((x, y), (wide, high), float(rng.uniform(0, 180))), shade, -1)
    elif kind == 2:
        cv2.line(ground, (x, y), (x + wide, y + int(rng.integers(-90, 90))), shade, int(rng.integers(1, 8)))
    elif kind == 3:
        letters = "".join(chr(code) for code in rng.integers(33, 127, 6))
        cv2.putText(
            ground, letters, (x, y), cv2.FONT_HERSHEY_SIMPLEX, float(rng.uniform(0.3, 1.5)), shade, 1 + int(rng.integers(3))
        )
    elif kind == 4:
        for at in range(int(rng.integers(2, 9))):
            cv2.rectangle(ground, (x + at * wide // 4, y), (x + at * wide // 4 + wide // 8, y + high), shade, -1)
    else:
        # two dots over a bar, the poorest likeness of a face
        for dx in (0, wide):
            cv2.circle(ground, (x + dx, y), max(1, wide // 6), shade, -1)
        cv2.line(ground, (x, y + wide), (x + wide, y + wide), shade, max(1, wide // 8))
