"""How usable one face is, and how much two faces are alike: from pixels alone, at the size that training sees.

Capture asks before it stores a picture, `models.faces.health` when it looks at a folder.
"""

from collections.abc import Sequence
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces.crop import crop_face
from models.faces.light import DIM

JUDGED_SIDE = 48
"""Faces are judged at this size: blur that shrinking takes away does no harm to training."""

SMALL_SIDE = 32
"""Pixels: a face whose picture is smaller was enlarged by half or more to be trained on."""

BLURRED = 0.06
"""Least `sharpness`. Of 4,000 faces of FER2013 0.1 % are below 0.14; blurred by a Gaussian of 1 pixel half are below 0.065,
by 1.5 pixels 95 % below 0.048."""

DARK, BRIGHT = 30.0, 225.0
"""Least and largest mean grey value, of 0 to 255."""

FLAT = DIM
"""Least standard deviation of the grey values: that of faces which the camera loop shows the model as they are. A flatter one
it gives more contrast first, and training would not."""

_LEAST_DEVIATION = 10.0

ALIKE = 12
"""Of 128 bits of `fingerprint`: two faces that differ in so many or fewer are nearly the same picture. The same face with
the noise of another frame differs in 1 to 6, enlarged by 3 % in 6 (median); two different faces of FER2013 in 12 or fewer
less than once in 10,000 pairs."""

COPIED = 4
"""Of 128 bits: so alike that it is one picture in two files, even under two emotions."""


class Flaw(StrEnum):
    """Why a face's picture is of little use for training."""

    SMALL = "too small"
    DARK = "too dark"
    BRIGHT = "too bright"
    FLAT = "of little contrast"
    BLURRED = "blurred"


def judged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture that already is a face crop, as (48, 48) uint8 grey."""
    rows, columns = picture.shape[:2]
    return crop_face(picture, (0, 0, columns, rows), JUDGED_SIDE)


def sharpness(picture: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the face at 48x48, its grey values scaled to mean 0 and deviation 1; 0 or more.

    The scaling makes dim and bright pictures comparable (the Laplacian's variance as a measure of focus: Pech-Pacheco et
    al. 2000, "Diatom autofocusing in brightfield microscopy").
    """
    face = judged(picture).astype(np.float32)
    deviation = max(float(face.std()), _LEAST_DEVIATION)
    return float(cv2.Laplacian((face - face.mean()) / deviation, cv2.CV_32F).var())


def flaw_of(picture: NDArray[np.uint8], width: int, height: int) -> Flaw | None:
    """The first reason, in the order of `Flaw`, why a face is of little use; None if it is good.

    Args:
        picture: a face crop, grey.
        width, height: of the picture as it was taken, in pixels.
    """
    face = judged(picture)
    if min(width, height) < SMALL_SIDE:
        return Flaw.SMALL
    if face.mean() < DARK:
        return Flaw.DARK
    if face.mean() > BRIGHT:
        return Flaw.BRIGHT
    if face.std() < FLAT:
        return Flaw.FLAT
    return Flaw.BLURRED if sharpness(face) < BLURRED else None


def fingerprint(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """16 bytes: whether each of 8x8 places is darker than its right and its lower neighbour (difference hash, both ways).

    Brightness and contrast do not change it; a shifted, turned or otherwise looking face does.
    """
    small = cv2.resize(judged(picture), (9, 9), interpolation=cv2.INTER_AREA)
    right, below = small[:-1, 1:] > small[:-1, :-1], small[1:, :-1] > small[:-1, :-1]
    return np.packbits(np.concatenate([right.ravel(), below.ravel()]))


def bits_apart(fingerprints: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(N, 16) and (16,) fingerprints -> (N,) number of bits, 0 to 128, in which each differs from the other."""
    return np.asarray(np.bitwise_count(fingerprints ^ other).sum(axis=1), dtype=np.int64)


def alike(fingerprints: NDArray[np.uint8], groups: Sequence[int] | NDArray[np.int64]) -> list[tuple[int, ...]]:
    """Rows that are nearly the same picture, in sets of two or more: whatever a chain of likeness connects.

    Args:
        fingerprints: (N, 16).
        groups: (N,) emotion of each row: within one, `ALIKE` counts; between two, `COPIED`.

    Returns:
        Sets in the order of their first row, each sorted.
    """
    labels = np.asarray(groups, dtype=np.int64)
    leader = np.arange(len(fingerprints))
    for row in range(1, len(fingerprints)):
        apart = bits_apart(fingerprints[:row], fingerprints[row])
        near = np.flatnonzero(apart <= np.where(labels[:row] == labels[row], ALIKE, COPIED))
        if len(near):
            leaders = np.unique(leader[near])
            leader[np.isin(leader, leaders[1:])] = leaders[0]
            leader[row] = leaders[0]
    return [
        tuple(int(at) for at in np.flatnonzero(leader == first)) for first in np.unique(leader) if (leader == first).sum() > 1
    ]
