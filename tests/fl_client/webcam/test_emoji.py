from itertools import combinations

import numpy as np
import pytest

from common.emotions import EMOTIONS_8
from fl_client.webcam import paint
from fl_client.webcam.emoji import DRAWN, emoji
from fl_client.webcam.seen import UNSURE


def stamped(label: str, side: int, ground: int) -> np.ndarray:
    canvas = np.full((side, side, 3), ground, dtype=np.uint8)
    paint.stamp(canvas, emoji(label, side), 0, 0)
    return canvas.astype(int)


def test_every_emotion_has_a_face() -> None:
    assert set(DRAWN) == set(EMOTIONS_8)


@pytest.mark.parametrize("side", [18, 29, 60])
def test_no_two_emotions_look_alike(side: int) -> None:
    faces = {label: stamped(label, side, 128) for label in (*EMOTIONS_8, UNSURE)}
    for one, other in combinations(faces, 2):
        differing = (np.abs(faces[one] - faces[other]).max(axis=2) > 60).mean()
        assert differing > 0.04, (one, other)


@pytest.mark.parametrize("label", [*EMOTIONS_8, UNSURE])
@pytest.mark.parametrize("ground", [0, 255])
def test_a_face_stands_out_on_light_and_on_dark(label: str, ground: int) -> None:
    face = stamped(label, 40, ground)
    corner = face[:3, :3]
    assert (corner == ground).all()
    assert (np.abs(face - ground).max(axis=2) > 100).mean() > 0.15


def test_what_has_no_face_of_its_own_gets_the_question_mark() -> None:
    np.testing.assert_array_equal(stamped("boredom", 24, 0), stamped(UNSURE, 24, 0))


def test_a_stamp_over_the_edge_is_cut() -> None:
    canvas = np.zeros((30, 30, 3), dtype=np.uint8)
    for x, y in ((-10, -10), (25, 25), (40, 40), (-50, 3)):
        paint.stamp(canvas, emoji("happiness", 20), x, y)
    whole = stamped("happiness", 20, 0)
    np.testing.assert_array_equal(canvas[:10, :10], whole[10:, 10:])
    np.testing.assert_array_equal(canvas[25:, 25:], whole[:5, :5])
