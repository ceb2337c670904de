"""A drawn scene is reproducible, its truth is right, and a stock face detector finds its people."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.emotions import EMOTIONS_7
from common.errors import ConfigError, DeviceError
from models.preprocess import Box, Preprocessing
from simulation.synthetic_faces import draw_faces
from simulation.synthetic_scene import SceneFrame, render_scene, write_scene_video
from tests.simulation.probe import edges, ridge_accuracy


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


@pytest.fixture(scope="module")
def frames() -> list[SceneFrame]:
    return [frame for seed in range(3) for frame in render_scene(12, seed=seed, people=2, fps=0.8)]


@pytest.fixture(scope="module")
def detections(frames: list[SceneFrame]) -> list[list[Box]]:
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    found = (cascade.detectMultiScale(cv2.cvtColor(f.picture, cv2.COLOR_BGR2GRAY), 1.1, 3, 0, (60, 60)) for f in frames)
    return [[(int(x), int(y), int(w), int(h)) for x, y, w, h in boxes] for boxes in found]


def test_a_stock_detector_finds_nine_of_ten_faces_and_little_else(frames: list[SceneFrame], detections: list[list[Box]]) -> None:
    faces = [
        max((overlap(face.box, box) for box in boxes), default=0.0) > 0.5
        for frame, boxes in zip(frames, detections, strict=True)
        for face in frame.faces
    ]
    assert np.mean(faces) > 0.9
    assert sum(map(len, detections)) < 1.05 * len(faces)


def test_a_detected_box_frames_a_face_like_the_training_crops(frames: list[SceneFrame], detections: list[list[Box]]) -> None:
    """The detector's boxes have the size and the centre of the framing that `draw_faces` uses."""
    offsets = []
    for frame, boxes in zip(frames, detections, strict=True):
        for face in frame.faces:
            x, y, side, _ = face.box
            for bx, by, wide, high in (box for box in boxes if overlap(face.box, box) > 0.5):
                offsets.append((wide / side, (bx + wide / 2 - x) / side - 0.5, (by + high / 2 - y) / side - 0.5))
    size, across, down = np.median(offsets, 0)
    assert 0.95 < size < 1.15
    assert abs(across) < 0.03
    assert abs(down) < 0.03


def test_what_was_learned_on_drawn_faces_reads_the_detected_ones(frames: list[SceneFrame], detections: list[list[Box]]) -> None:
    train = draw_faces(700, seed=100, people=70)
    labels, crops = [], []
    for frame, boxes in zip(frames, detections, strict=True):
        for face in (face for face in frame.faces if face.settled):
            for box in (box for box in boxes if overlap(face.box, box) > 0.5):
                crops.append(Preprocessing().crop(frame.picture, box))
                labels.append(EMOTIONS_7.index(face.emotion))
    accuracy = ridge_accuracy(edges(train.images), train.labels, edges(np.stack(crops)), np.array(labels))
    assert accuracy > 0.45


def test_the_same_seed_renders_the_same_scene() -> None:
    first, again, other = (list(render_scene(3, seed=seed, size=(240, 320))) for seed in (1, 1, 2))
    assert all(np.array_equal(a.picture, b.picture) and a.faces == b.faces for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].picture, other[0].picture)


def test_people_move_and_show_each_emotion_in_turn(frames: list[SceneFrame]) -> None:
    first = frames[:12]
    assert {face.emotion for frame in first for face in frame.faces} == set(EMOTIONS_7)
    assert len({frame.faces[0].box for frame in first}) > 9
    assert {face.settled for frame in first for face in frame.faces} == {True, False}


def test_boxes_lie_on_the_faces(frames: list[SceneFrame]) -> None:
    """A box's picture hardly changes between frames, the whole picture's same place does: the box follows its face."""
    for person in range(2):
        crops = [Preprocessing().crop(frame.picture, frame.faces[person].box) for frame in frames[:12]]
        still = frames[0].faces[person].box
        parked = [Preprocessing().crop(frame.picture, still) for frame in frames[:12]]
        assert np.std(crops, 0).mean() < 0.9 * np.std(parked, 0).mean()


def test_a_scene_may_be_empty() -> None:
    (frame,) = render_scene(1, seed=0, people=0, size=(120, 160))
    assert frame.faces == ()
    assert frame.picture.shape == (120, 160, 3)
    assert list(render_scene(0, seed=0)) == []


def test_a_scene_is_written_as_a_video_with_its_truth(tmp_path: Path) -> None:
    path = tmp_path / "scene.mp4"
    truth = write_scene_video(path, 6, seed=1, people=1, size=(240, 320), fps=10)
    video = cv2.VideoCapture(str(path))
    read = [picture for good, picture in (video.read() for _ in range(7)) if good]
    assert len(read) == len(truth) == 6
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    drawn = list(render_scene(6, seed=1, people=1, size=(240, 320), fps=10))
    assert truth == [frame.faces for frame in drawn]
    assert np.abs(read[3].astype(float) - drawn[3].picture).mean() < 8


@pytest.mark.parametrize("name", ["absent/scene.mp4", "."])
def test_a_video_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeviceError, match=r"cannot be written: .*\.$"):
        write_scene_video(tmp_path / name, 1, seed=0)


@pytest.mark.parametrize("target", ["x.txt", "dangling.mp4", "/dev/full"])
def test_opencv_says_nothing_beside_the_sentence(tmp_path: Path, target: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dangling.mp4").symlink_to("absent/scene.mp4")
    with pytest.raises(DeviceError, match=r"cannot be written: .*\.$"):
        write_scene_video(tmp_path / target, 1, seed=0)
    assert capfd.readouterr().err == ""


def test_a_name_that_opencv_does_not_take_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"The name of .*/bad\ufffd\.mp4 is not valid UTF-8, .*: use another name"):
        write_scene_video(tmp_path / os.fsdecode(b"bad\xff.mp4"), 1, seed=0)


def test_a_writer_that_does_not_open_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    with pytest.raises(DeviceError, match=r"cannot be written: .*\.$"):
        write_scene_video(tmp_path / "scene.mp4", 1, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"frames": -1}, {"seed": -1}, {"people": -1}, {"people": 9}, {"fps": 0.0}, {"emotions": ("joy",)}]
)
def test_a_wrong_argument_is_refused_before_the_first_frame(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"\.$"):
        render_scene(**({"frames": 1, "seed": 0} | wrong))
