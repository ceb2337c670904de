"""Drawn faces as a device's folder of pictures, for trying the client without a camera. `fl-sim draw` calls it."""

from pathlib import Path

from PIL import Image

from common.errors import DataError
from simulation.synthetic_faces import draw_faces


def draw_folder(folder: Path, count: int, *, people: int, seed: int) -> int:
    """Write `count` drawn faces to folder/<emotion>/<number>.png; returns how many.

    Raises:
        DataError: the folder holds something already, or cannot be written.
    """
    faces = draw_faces(count, seed=seed, people=people)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} is not empty; give a folder that does not exist yet.")
        for number, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
            home = folder / faces.classes[label]
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(home / f"{number:05d}.png")
    except OSError as error:
        raise DataError(f"Faces cannot be written to {folder}: {error.strerror}.") from error
    return count
