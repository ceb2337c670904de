import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.faces.crop import crop_face, face_square, to_grey
from models.preprocess import Preprocessing
from tests.golden.crop_vectors import FILE, vectors


def test_every_golden_crop_comes_out_as_it_is_written() -> None:
    """The browser's JavaScript is held to the same file."""
    assert json.loads(FILE.read_text(encoding="utf-8")) == vectors()


@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 99), st.integers(1, 99), st.floats(0, 1))
def test_the_square_is_centred_on_the_box_and_holds_its_longer_side(
    x: int, y: int, width: int, height: int, margin: float
) -> None:
    left, top, side = face_square((x, y, width, height), margin)
    assert side >= max(width, height)
    assert abs(side - max(width, height) * (1 + 2 * margin)) <= 0.5
    assert 0 <= (x + width / 2) - (left + side / 2) <= 0.5
    assert 0 <= (y + height / 2) - (top + side / 2) <= 0.5


@given(st.integers(-40, 60), st.integers(-40, 60), st.integers(1, 50), st.integers(-20, 20), st.integers(-20, 20))
def test_a_moved_picture_with_a_moved_box_gives_the_same_crop(x: int, y: int, side: int, dx: int, dy: int) -> None:
    ground = np.random.default_rng(0).integers(0, 256, (160, 160), dtype=np.uint8)
    whole, part = (x + 40, y + 40, side, side), ground[40 + dy : 130 + dy, 40 + dx : 130 + dx]
    inside = (x - dx, y - dy, side, side)
    if x >= dx and y >= dy and x - dx + side <= 90 and y - dy + side <= 90:
        np.testing.assert_array_equal(crop_face(ground, whole, 24), crop_face(part, inside, 24))


def test_halves_are_rounded_down_so_that_javascript_agrees() -> None:
    assert face_square((0, 0, 3, 2)) == (0, -1, 3)
    assert face_square((10, 10, 5, 5), 0.05) == (9, 9, 6)
    assert face_square((10, 10, 15, 15), 0.1) == (8, 8, 18)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_become_grey_by_the_broadcast_weights(channels: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (5, 6, channels), dtype=np.uint8)
    weights = np.array([0.114, 0.587, 0.299]) if channels > 1 else np.ones(1)
    np.testing.assert_allclose(to_grey(picture), (picture[:, :, :3] * weights).sum(2), atol=1)


@given(st.integers(-30, 60), st.integers(-30, 60), st.integers(1, 60))
def test_training_pictures_and_the_loops_faces_go_through_this_one_function(x: int, y: int, side: int) -> None:
    """`whole` is what folders of pictures are read with, `crop` what the loop calls."""
    picture = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    preprocessing = Preprocessing(size=32, crop_margin=0.1)
    np.testing.assert_array_equal(
        preprocessing.crop(picture, (x, y, side, side)), crop_face(picture, (x, y, side, side), 32, 0.1)
    )
    np.testing.assert_array_equal(preprocessing.whole(picture), crop_face(picture, (0, 0, 80, 60), 32))


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    assert set(np.unique(crop_face(stripes, (0, 0, 64, 64), 32))) <= {127, 128}
    ramp = np.tile(np.arange(0, 64, 4, dtype=np.uint8), (16, 1))
    np.testing.assert_array_equal(crop_face(ramp, (0, 0, 16, 16), 32), cv2.resize(ramp, (32, 32), interpolation=cv2.INTER_LINEAR))
