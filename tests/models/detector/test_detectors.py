from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from common.errors import ConfigError, DependencyError
from models.detector.detection import Detection, overlap
from models.detector.detectors import make_detector
from models.detector.haar import HaarDetector
from simulation.synthetic_scene import render_scene
from tests.realdata import data_folder


def test_a_frame_without_faces_has_no_boxes() -> None:
    detector = make_detector("haar")
    assert detector.name == "haar"
    assert detector.detect(np.full((480, 640, 3), 127, dtype=np.uint8)) == []
    assert detector.detect(np.zeros((1, 1, 3), dtype=np.uint8)) == []


def test_an_unknown_detector_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no detector called 'hare'; choose one of: auto, .*haar"):
        make_detector("hare")


def test_an_opencv_without_cascades_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "data", SimpleNamespace(haarcascades=str(tmp_path)))
    with pytest.raises(DependencyError, match="carries no Haar cascades"):
        HaarDetector()
    monkeypatch.delattr(cv2, "data")
    with pytest.raises(DependencyError, match="carries no Haar cascades"):
        HaarDetector()


def test_boxes_are_in_pixels_of_the_whole_frame_from_left_to_right(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[tuple[int, ...]] = []

    class Cascade:
        def __init__(self, path: str) -> None:
            assert path.endswith("haarcascade_frontalface_alt2.xml")

        def detectMultiScale(self, grey: Any, **settings: Any) -> Any:
            searched.append(grey.shape)
            return np.array([[200, 30, 40, 40], [10, 20, 30, 30]], dtype=np.int32)

    monkeypatch.setattr(cv2, "CascadeClassifier", Cascade)
    detector = make_detector("haar", 320)
    frame = np.zeros((480, 640, 3), dtype=np.uint8)
    assert detector.detect(frame) == [Detection((20, 40, 60, 60), 1.0), Detection((400, 60, 80, 80), 1.0)]
    assert [found.box for found in detector.detect(frame[:100, :200])] == [(10, 20, 30, 30), (200, 30, 40, 40)]
    assert searched == [(240, 320), (100, 200)]


def test_drawn_people_are_found_where_their_faces_are() -> None:
    detector = make_detector("haar")
    wanted = found = false = 0
    for frame in render_scene(10, seed=1, people=2, fps=2.0):
        boxes = [found.box for found in detector.detect(frame.picture)]
        hits = sum(any(overlap(box, face.box) > 0.5 for box in boxes) for face in frame.faces)
        wanted, found, false = wanted + len(frame.faces), found + hits, false + len(boxes) - hits
    assert wanted == 20
    assert found >= 18
    assert false <= 1


@pytest.mark.slow
def test_real_faces_are_found_where_the_training_crops_lie() -> None:
    with np.load(data_folder() / "ferplus.npz", allow_pickle=False) as data:
        faces = data["images"][data["usage"] == 2]
    rng = np.random.default_rng(0)
    detector = make_detector("haar")
    widths, offsets = [], []
    trials = 120
    for face in faces[rng.choice(len(faces), trials, replace=False)]:
        side = int(rng.integers(110, 260))
        x, y = int(rng.integers(0, 640 - side)), int(rng.integers(0, 480 - side))
        ground = rng.integers(60, 200, (6, 8), dtype=np.uint8)
        frame = cv2.GaussianBlur(cv2.resize(ground, (640, 480), interpolation=cv2.INTER_CUBIC), (0, 0), 5)
        frame[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        for found in detector.detect(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)):
            left, top, width, height = found.box
            centre = left + width / 2, top + height / 2
            if x < centre[0] < x + side and y < centre[1] < y + side and width > side / 2:
                widths.append(width / side)
                offsets.append((np.asarray(centre) - (x + side / 2, y + side / 2)) / side)
                break
    assert len(widths) >= 0.65 * trials
    assert np.median(widths) == pytest.approx(1.0, abs=0.1)
    assert np.abs(np.median(offsets, axis=0)).max() < 0.03
