"""Drawn faces as a device's folder of pictures, for trying the client without a camera. `fl-sim draw` calls it."""

from pathlib import Path

from simulation.face_folders import write_faces
from simulation.synthetic_faces import draw_faces


def draw_folder(folder: Path, count: int, *, people: int, seed: int) -> int:
    """Write `count` drawn faces to folder/<emotion>/<number>.png; returns how many.

    Raises:
        DataError: the folder holds something already, or cannot be written.
    """
    return write_faces(folder, draw_faces(count, seed=seed, people=people))
