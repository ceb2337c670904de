from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.detector.grid import DOUBTFUL, LONGEST_SIDE, MOST_LOOKS, THRESHOLD, GridDetector
from models.detector.haar import open_cascade
from models.detector.levels import LEVELS
from models.detector.second_look import AROUND, LARGEST, SIDE, SMALLEST, SecondLook
from models.preprocess import Box
from simulation.synthetic_scene import render_scene


class Cascade:
    """Finds a face where the picture's middle is bright, and keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []

    def detectMultiScale(self, grey: NDArray[np.uint8], **settings: Any) -> list[Box]:
        assert (settings["minSize"], settings["maxSize"]) == ((SMALLEST, SMALLEST), (LARGEST, LARGEST))
        self.seen.append(grey)
        middle = len(grey) // 2
        return [(middle - SIDE // 2, middle - SIDE // 2, SIDE, SIDE)] if grey[middle, middle] > 200 else []


@pytest.fixture
def cascade(monkeypatch: pytest.MonkeyPatch) -> Cascade:
    made = Cascade()
    monkeypatch.setattr("models.detector.second_look.open_cascade", lambda: made)
    return made


def spots(*middles: tuple[int, int]) -> NDArray[np.uint8]:
    grey = np.full((480, 640), 50, dtype=np.uint8)
    for x, y in middles:
        cv2.circle(grey, (x, y), 15, 255, -1)
    return grey


@pytest.mark.parametrize("middle", [(300, 200), (5, 5), (638, 478), (-30, 100)])
def test_it_looks_at_the_box_and_a_little_around_it_at_one_size(cascade: Cascade, middle: tuple[int, int]) -> None:
    x, y = middle
    look = SecondLook()
    box = look.confirmed(spots(middle), (x - 40, y - 40, 80, 80))
    assert (box is not None) == (x >= 0)
    if box is not None:
        np.testing.assert_allclose(box, (x - 40, y - 40, 80, 80), atol=3)
    [seen] = cascade.seen
    assert seen.shape == (round(AROUND * SIDE),) * 2
    if x == 300:
        bright = np.argwhere(seen > 200).mean(0)
        np.testing.assert_allclose(bright, (len(seen) - 1) / 2, atol=1)


def test_what_lies_outside_the_frame_is_no_face(cascade: Cascade) -> None:
    assert SecondLook().confirmed(spots((0, 0)), (-500, 10, 60, 60)) is None
    assert SecondLook().confirmed(spots((0, 0)), (10, 900, 60, 60)) is None
    assert cascade.seen == []


def test_a_drawn_face_is_found_again_beside_which_the_box_stood_and_a_wall_holds_none() -> None:
    look = SecondLook()
    cascade = open_cascade()
    confirmed, offsets = 0, []
    for frame in render_scene(3, seed=1, people=2, fps=2.0):
        grey = cv2.cvtColor(frame.picture, cv2.COLOR_BGR2GRAY)
        for found in cascade.detectMultiScale(cv2.equalizeHist(grey), 1.1, 3, minSize=(60, 60)):
            x, y, side, _ = (int(value) for value in found)
            box = look.confirmed(grey, (x + side // 5, y, side, side))
            if box is not None:
                confirmed += 1
                offsets.append(abs(box[0] + box[2] / 2 - x - side / 2) / side)
    assert confirmed >= 3
    assert np.median(offsets) < 0.12
    assert look.confirmed(np.full((200, 200), 90, dtype=np.uint8), (50, 50, 80, 80)) is None


class Says:
    """In place of the network: the scores that it is told, each in a cell of its own of the coarse grid."""

    def __init__(self, scores: dict[tuple[int, int], float]) -> None:
        self._scores = scores

    def run(self, names: list[str], inputs: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        rows, columns = inputs["picture"].shape[2:]
        assert (rows, columns) == (LONGEST_SIDE * 3 // 4, LONGEST_SIDE)
        maps = [np.full((1, 4, rows // level.stride, columns // level.stride), -9, dtype=np.float32) for level in LEVELS]
        maps[0][0, 1:] = maps[1][0, 1:] = 0
        for (row, column), score in self._scores.items():
            maps[1][0, :, row, column] = (np.log(score / (1 - score)), 0, 0, np.log(16 / LEVELS[1].side))
        return maps


def detector(scores: dict[tuple[int, int], float], **settings: Any) -> GridDetector:
    made = GridDetector(**settings)
    made._session = Says(scores)
    return made


def at(row: int, column: int) -> tuple[int, int]:
    """The middle of a coarse cell in pixels of a 640x480 frame."""
    cell = LEVELS[1].stride * 640 / LONGEST_SIDE
    return round((column + 0.5) * cell), round((row + 0.5) * cell)


def test_sure_places_are_taken_doubtful_ones_only_if_confirmed_and_the_rest_is_not_looked_at(cascade: Cascade) -> None:
    scores = {(1, 1): THRESHOLD + 0.1, (1, 6): DOUBTFUL + 0.1, (5, 3): DOUBTFUL + 0.1, (8, 8): DOUBTFUL - 0.1}
    found = detector(scores).detect(spots(at(1, 6), at(8, 8)))
    middles = [(one.box[0] + one.box[2] / 2, one.box[1] + one.box[3] / 2) for one in found]
    np.testing.assert_allclose(middles, [at(1, 1), at(1, 6)], atol=2)
    assert len(cascade.seen) == 2


def test_only_so_many_doubtful_places_of_a_frame_are_looked_at_the_likeliest_first(cascade: Cascade) -> None:
    cells = [(row, column) for row in (1, 5, 9) for column in (1, 5, 9, 13)]
    scores = {cell: DOUBTFUL + 0.01 * (1 + number) for number, cell in enumerate(cells)}
    found = detector(scores).detect(spots(*(at(*cell) for cell in cells)))
    assert len(cascade.seen) == MOST_LOOKS
    likeliest = sorted(scores.values())[-MOST_LOOKS:]
    np.testing.assert_allclose(sorted(one.score for one in found), likeliest, atol=1e-5)


def test_without_cascades_and_where_it_is_not_wanted_nobody_looks_twice(
    cascade: Cascade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {(1, 1): THRESHOLD + 0.05, (5, 5): THRESHOLD - 0.05}
    frame = spots(at(1, 1), at(5, 5))
    assert len(detector(scores, twice=False).detect(frame)) == 1
    assert len(detector(scores, twice=False, threshold=THRESHOLD - 0.1).detect(frame)) == 2
    assert cascade.seen == []
    monkeypatch.undo()
    monkeypatch.setattr(cv2, "data", SimpleNamespace(haarcascades=str(tmp_path)))
    assert len(detector(scores).detect(frame)) == 1
    assert cascade.seen == []
