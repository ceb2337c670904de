"""The faces of a simulation and how they are dealt to its devices: a function of the configuration alone."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from common.config import DataConfig, ModelConfig
from models.faces.faceset import FaceSet
from models.faces.fer2013 import Usage
from models.faces.source import open_faces
from simulation.partition import PartitionConfig, partition
from simulation.synthetic_faces import draw_faces

MOST_DRAWN_TEST = 1500
FACES_PER_PERSON = 30
LEAST_PEOPLE = 7
LEAST_EXAMPLES = 8


@dataclass(frozen=True)
class Population:
    """Everybody's faces.

    Attributes:
        faces: all training faces.
        training: rows of `faces` that each device trains on.
        holdout: rows that each device keeps aside.
        validation: scored after each round.
        test: scored once, at the end.
        notes: what was read and what was left out, a sentence each.
    """

    faces: FaceSet
    training: tuple[NDArray[np.int64], ...]
    holdout: tuple[NDArray[np.int64], ...]
    validation: FaceSet
    test: FaceSet
    notes: tuple[str, ...]

    def device(self, number: int) -> FaceSet:
        """The training faces of one device."""
        return self.faces.take(self.training[number])


@dataclass(frozen=True)
class StoredFaces:
    """A population's training faces in files that worker processes map into memory: one copy for all of them.

    Attributes:
        folder: of the files; it must outlive the workers.
        classes: of the labels.
    """

    folder: Path
    classes: tuple[str, ...]

    @classmethod
    def write(cls, population: Population, folder: Path) -> "StoredFaces":
        """Write the files."""
        np.save(folder / "images.npy", population.faces.images)
        np.save(folder / "targets.npy", population.faces.targets)
        np.save(folder / "rows.npy", np.concatenate(population.training))
        np.save(folder / "ends.npy", np.cumsum([0, *(len(rows) for rows in population.training)]))
        return cls(folder, population.faces.classes)

    def __call__(self, number: int) -> FaceSet:
        """The training faces of device `number`."""
        images, targets, rows, ends = (
            np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("images", "targets", "rows", "ends")
        )
        own = np.array(rows[ends[number] : ends[number + 1]])
        return FaceSet(np.array(images[own]), np.array(targets[own]), self.classes)


def _people(faces: int) -> int:
    return max(LEAST_PEOPLE, faces // FACES_PER_PERSON)


def _read(data: DataConfig, model: ModelConfig, seed: int) -> tuple[FaceSet, FaceSet, FaceSet, tuple[str, ...]]:
    if data.path is None:
        aside = min(MOST_DRAWN_TEST, data.drawn // 4)
        train, validation, test = (
            draw_faces(count, seed=3 * seed + part, people=_people(count), classes=model.classes)
            for part, count in enumerate((data.drawn, aside, aside))
        )
        note = f"{data.drawn} drawn faces of {_people(data.drawn)} people; test faces are of other people."
        return train, validation, test, (note,)
    if data.path.is_dir() and not (data.path / "fer2013.csv").exists():
        everything, note = open_faces(data.path, classes=model.classes)
        order = np.random.default_rng(seed).permutation(len(everything))
        tenth = max(1, len(order) // 10)
        test, validation, train = (everything.take(rows) for rows in np.split(order, [tenth, 2 * tenth]))
        return train, validation, test, (note, f"{tenth} faces each were set aside for validation and test.")
    (train, first), (validation, second), (test, third) = (
        open_faces(data.path, labels=data.labels, usage=usage, classes=model.classes) for usage in get_args(Usage)
    )
    return train, validation, test, (first, second, third)


@lru_cache(maxsize=2)
def make_population(data: DataConfig, model: ModelConfig, seed: int) -> Population:
    """Read or draw the faces and deal them out.

    Raises:
        DataError: the data cannot be used, or there are too few faces for so many devices.
    """
    train, validation, test, notes = _read(data, model, seed)
    parts = partition(
        train,
        PartitionConfig(scheme=data.scheme, clients=data.clients, alpha=data.alpha, min_examples=LEAST_EXAMPLES, seed=seed),
    )
    training, holdout = [], []
    for number, rows in enumerate(parts):
        shuffled = np.random.default_rng([seed, number]).permutation(rows)
        aside = min(round(data.holdout * len(rows)), len(rows) - 1)
        holdout.append(np.sort(shuffled[:aside]))
        training.append(np.sort(shuffled[aside:]))
    return Population(train, tuple(training), tuple(holdout), validation, test, notes)
