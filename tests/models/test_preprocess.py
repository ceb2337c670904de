import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.preprocess import Preprocessing


def picture(rows: int = 60, columns: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@settings(max_examples=50, deadline=None)
@given(st.integers(-50, 100), st.integers(-50, 100), st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.0, 0.1, 1.0]))
def test_any_box_gives_a_crop_of_the_models_size(x: int, y: int, width: int, height: int, margin: float) -> None:
    face = Preprocessing(crop_margin=margin).crop(picture(), (x, y, width, height))
    assert face.shape == (48, 48)
    assert face.dtype == np.uint8


def test_a_crop_of_the_models_size_is_the_pictures_own_pixels() -> None:
    grey = cv2.cvtColor(picture(), cv2.COLOR_BGR2GRAY)
    assert np.array_equal(Preprocessing().crop(picture(), (10, 5, 48, 48)), grey[5:53, 10:58])


def test_beyond_the_edge_the_edge_repeats() -> None:
    flat = np.tile(np.arange(48, dtype=np.uint8)[:, None], (1, 48))
    face = Preprocessing().crop(flat, (-24, 0, 48, 48))
    assert np.array_equal(face[:, 0], flat[:, 0])
    assert np.array_equal(face[:, 24:], flat[:, :24])


def test_the_margin_widens_the_box_on_every_side() -> None:
    dot = np.zeros((100, 100), np.uint8)
    dot[30, 50] = 255
    inside = Preprocessing(crop_margin=0.5).crop(dot, (40, 40, 20, 20))
    outside = Preprocessing(crop_margin=0.0).crop(dot, (40, 40, 20, 20))
    assert inside.max() > 0
    assert outside.max() == 0


def test_a_face_crop_file_gets_no_margin() -> None:
    grey = picture(48, 48)[:, :, 0]
    assert np.array_equal(Preprocessing(crop_margin=0.3).whole(grey), grey)


def test_normalisation_is_the_stated_formula() -> None:
    faces = np.array([[[0, 255], [128, 64]]], np.uint8)
    value = Preprocessing(mean=0.4, std=0.2).normalise(faces)
    assert value.shape == (1, 1, 2, 2)
    assert value.dtype == np.float32
    assert np.allclose(value[0, 0], (faces[0] / 255 - 0.4) / 0.2, atol=1e-6)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({"size": 48, "sharpen": True})
