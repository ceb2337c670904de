import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.faces.light import DIM, relit
from tests.realdata import data_folder

PATTERN = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.float32), (0, 0), 3)
FACE = np.clip((PATTERN - PATTERN.mean()) / PATTERN.std() * 54 + 128, 0, 255).astype(np.uint8)


def dimmed(light: float) -> np.ndarray:
    return (FACE * light).astype(np.uint8)


def test_a_face_in_ordinary_light_passes_byte_for_byte() -> None:
    assert relit(FACE) is FACE


@given(st.floats(0.06, 0.4))
def test_a_dim_face_gets_its_contrast_back(light: float) -> None:
    made = relit(dimmed(light))
    assert made.std() > 45
    assert np.corrcoef(made.ravel(), FACE.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("level", [0, 7, 255])
def test_an_even_square_stays_even(level: int) -> None:
    flat = np.full((48, 48), level, dtype=np.uint8)
    np.testing.assert_array_equal(relit(flat), flat)


@pytest.mark.slow
def test_hardly_any_training_face_is_changed() -> None:
    with np.load(data_folder() / "ferplus.npz", allow_pickle=False) as data:
        faces = data["images"][data["usage"] == 0]
    spread = faces.reshape(len(faces), -1).std(1)
    assert (spread < DIM).mean() < 0.01
