"""Faces of a data set as folders of pictures, one per device, as `fl-client --data` takes them. `fl-sim deal` writes them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import ConfigError, DataError
from models.faces.faceset import FaceSet
from simulation.partition import PartitionConfig, partition


def write_faces(folder: Path, faces: FaceSet) -> int:
    """Write faces to folder/<emotion>/<number>.png, each under its most likely emotion; returns how many.

    Raises:
        DataError: the folder holds something already, or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} is not empty; give a folder that does not exist yet.")
        for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
            home = folder / faces.classes[label]
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(home / f"{number:05d}.png")
    except OSError as error:
        raise DataError(f"Faces cannot be written to {folder}: {error.strerror}.") from error
    return len(faces)


def deal_faces(
    faces: FaceSet,
    folder: Path,
    *,
    devices: int,
    count: int,
    alpha: float | None,
    seed: int,
    say: Callable[[Path, int], None] = lambda where, dealt: None,
) -> list[Path]:
    """Deal `count` faces, drawn at random, to each of `devices` folders; no face lies in two.

    Args:
        folder: the folders' name, to which a number from 1 is added.
        alpha: each emotion is split in Dirichlet(alpha) shares, so that devices differ in size and emotions; None deals evenly.
        say: told each folder and how many faces it got.

    Raises:
        ConfigError: `alpha` is not a number to deal with, or `folder` has no name.
        DataError: there are too few faces, or a folder holds something already.
    """
    if alpha is not None and not 0 < alpha < math.inf:
        raise ConfigError(f"--alpha must be a finite number above 0, not {alpha}; leave it out to deal evenly.")
    if not folder.name:
        raise ConfigError("FOLDER needs a name, to which numbers are added: write one such as faces.")
    if len(faces) < devices * count:
        raise DataError(f"{len(faces)} faces cannot give {devices} devices {count} each: ask for fewer.")
    folders = [folder.with_name(f"{folder.name}{number}") for number in range(1, devices + 1)]
    for home in folders:
        if home.exists():
            raise DataError(f"{home} is there already; give another name.")
    chosen = np.random.default_rng(seed).choice(len(faces), devices * count, replace=False)
    some = faces.take(np.sort(chosen))
    scheme = PartitionConfig(scheme="iid" if alpha is None else "dirichlet", clients=devices, alpha=alpha or 1.0, seed=seed)
    for home, rows in zip(folders, partition(some, scheme), strict=True):
        say(home, write_faces(home, some.take(rows)))
    return folders
