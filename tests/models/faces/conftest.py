"""Small files in the published formats, and the real ones."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.faces.ferplus import VOTES
from tests.realdata import export

Row = tuple[int, NDArray[np.uint8], str]


def face(seed: int, side: int = 48) -> NDArray[np.uint8]:
    """Noise that stands for a face: (side, side), different for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def row(label: int, seed: int, usage: str = "Training") -> Row:
    return label, face(seed), usage


def line(label: object, pixels: object, usage: object) -> str:
    numbers = " ".join(map(str, pixels.ravel())) if isinstance(pixels, np.ndarray) else pixels
    return f"{label},{numbers},{usage}"


@pytest.fixture
def fer2013(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as Kaggle's file; a string is written as it stands."""

    def write(rows: Sequence[Row | str], header: str = "emotion,pixels,Usage", end: str = "\r\n") -> Path:
        lines = [header, *(r if isinstance(r, str) else line(*r) for r in rows)]
        path = tmp_path / "fer2013.csv"
        path.write_bytes("".join(text + end for text in lines).encode())
        return path

    return write


@pytest.fixture
def fer2013new(tmp_path: Path) -> Callable[..., Path]:
    """Write (usage, ten votes) rows as FER+'s file."""

    def write(rows: Sequence[tuple[str, Sequence[int]] | str], header: str | None = None) -> Path:
        lines = [header or ",".join(["Usage", "Image name", *VOTES])]
        for i, r in enumerate(rows):
            lines.append(r if isinstance(r, str) else f"{r[0]},fer{i:07d}.png,{','.join(map(str, r[1]))}")
        path = tmp_path / "fer2013new.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def save() -> Callable[..., Path]:
    """Save a picture, making its folder."""

    def write(path: Path, pixels: NDArray[np.uint8] | int, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face(pixels) if isinstance(pixels, int) else pixels).save(path, **options)
        return path

    return write


@pytest.fixture(scope="session")
def official_csvs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the real fer2013.csv and fer2013new.csv, removed after the session."""
    folder = tmp_path_factory.mktemp("official")
    yield export(folder, "csv")
    shutil.rmtree(folder)
