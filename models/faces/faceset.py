"""Faces with their labels in memory: what loaders return, partitioners split and training reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_8
from common.errors import DataError


@dataclass(frozen=True)
class FaceSet:
    """N face crops and what people say they show.

    Attributes:
        images: (N, S, S) uint8 grey.
        targets: (N, C) float32; each row is a distribution over `classes` (one-hot for hard labels).
        classes: C canonical emotion names.
        people: (N,) int32 identity of each face where it is known (drawn faces), else None.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]
    classes: tuple[str, ...]
    people: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.ndim != 3 or self.images.dtype != np.uint8 or self.images.shape[1] != self.images.shape[2]:
            raise DataError(f"Faces must be (N, S, S) uint8, not {self.images.shape} {self.images.dtype}.")
        if self.targets.shape != (n, len(self.classes)) or self.targets.dtype != np.float32:
            raise DataError(f"Labels must be ({n}, {len(self.classes)}) float32, not {self.targets.shape} {self.targets.dtype}.")
        if unknown := set(self.classes) - set(EMOTIONS_8):
            raise DataError(f"Unknown emotion names: {', '.join(sorted(unknown))}.")
        if n and not np.allclose(self.targets.sum(1), 1.0, atol=1e-4):
            raise DataError("Each row of labels must sum to 1.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) index of the most likely class of each face."""
        return np.asarray(self.targets.argmax(1), dtype=np.int64)

    def counts(self) -> dict[str, int]:
        """Number of faces by most likely class."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "FaceSet":
        """The faces at `rows`, in that order."""
        at = np.asarray(rows, dtype=np.int64)
        people = None if self.people is None else self.people[at]
        return FaceSet(self.images[at], self.targets[at], self.classes, people)

    def with_classes(self, classes: tuple[str, ...]) -> "FaceSet":
        """The same faces over another list of classes, columns matched by name.

        A face whose most likely class is not in `classes` is left out. Of the others, weight on absent classes is
        dropped and the row is scaled to sum to 1, which keeps its most likely class.
        """
        if classes == self.classes:
            return self
        kept = np.flatnonzero(np.isin(self.labels, [i for i, name in enumerate(self.classes) if name in classes]))
        targets = np.zeros((len(kept), len(classes)), dtype=np.float32)
        for column, name in enumerate(classes):
            if name in self.classes:
                targets[:, column] = self.targets[kept, self.classes.index(name)]
        targets /= targets.sum(1, keepdims=True)
        people = None if self.people is None else self.people[kept]
        return FaceSet(self.images[kept], targets, classes, people)


def one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """(N,) class indices -> (N, classes) float32."""
    return np.eye(classes, dtype=np.float32)[labels]
