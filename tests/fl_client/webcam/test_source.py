import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from common.errors import ConfigError, DeviceError
from fl_client.webcam import camera
from fl_client.webcam.camera import NewestSlot
from fl_client.webcam.quiet import native_stderr_silenced
from fl_client.webcam.source import Kind, open_source

from .conftest import frame_with, write_video


def warned(sentence: str) -> None:
    raise AssertionError(f"unexpected warning: {sentence}")


class FakeCapture:
    """A camera that gives `frames`, grey level = number, then waits for `more`, and then fails."""

    def __init__(self, frames: int, more: threading.Event | None = None, opened: bool = True) -> None:
        self.frames, self.more, self.opened = frames, more, opened
        self.given = 0
        self.all_given = threading.Event()
        self.released = False

    def isOpened(self) -> bool:
        return self.opened

    def read(self) -> tuple[bool, Any]:
        if self.given == self.frames:
            self.all_given.set()
            if self.more is not None:
                self.more.wait(10)
            return False, None
        self.given += 1
        return True, np.full((48, 64, 3), self.given, dtype=np.uint8)

    def get(self, what: int) -> float:
        return 30.0 if what == cv2.CAP_PROP_FPS else 100.0

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nowhere.mp4", "does not exist; --source takes a camera's index"),
        ("empty", "holds no pictures"),
        ("broken.mp4", "is not a video or picture that OpenCV can read"),
        ("zero.mp4", "is not a video or picture that OpenCV can read"),
        ("broken.png", "is not a picture that OpenCV can read"),
        ("broken", "holds no picture that can be read"),
        ("fifo", "is not a file or folder"),
        ("http://user:secret@camera.local/stream", r"Network streams \(http://\) cannot be used"),
        ("https://example.org/a.mp4", r"Network streams \(https://\) cannot be used"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_sentence(
    text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name in ("broken.mp4", "broken.png", "broken/1.png"):
        (tmp_path / name).write_bytes(b"no picture at all " * 50)
    (tmp_path / "zero.mp4").touch()
    os.mkfifo(tmp_path / "fifo")
    with native_stderr_silenced(), pytest.raises(DeviceError, match=sentence) as caught:
        open_source(text, warned)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("text", ["7", "/dev/video7"])
def test_a_missing_camera_is_named_with_the_way_out(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(0, opened=False)
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture if index == 7 else None)
    with pytest.raises(DeviceError, match=r"Camera 7 was not found; --source also takes .* a video, a picture"):
        open_source(text, warned)
    assert capture.released


def test_a_camera_without_pictures_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: FakeCapture(0))
    with pytest.raises(DeviceError, match="Camera 0 opens but gives no picture"):
        open_source("0", warned)


def test_a_slow_loop_sees_the_cameras_newest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(6, more=threading.Event())
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: capture)
    source = open_source("0", warned)
    assert (source.facts.kind, source.facts.size, source.facts.fps) == (Kind.CAMERA, (64, 48), 30.0)
    frames = source.frames()
    first = next(frames)
    assert capture.all_given.wait(10)
    newest = next(frames)
    levels = first.picture[0, 0, 0], newest.picture[0, 0, 0]
    assert levels == (1, 6)
    assert newest.index == 1
    assert newest.seconds >= first.seconds
    assert source.dropped == 6 - 2
    assert capture.more is not None
    capture.more.set()
    source.close()
    assert capture.released


def test_a_camera_that_stops_is_an_error_and_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(cv2, "VideoCapture", lambda index: FakeCapture(1))
    source = open_source("0", warned)
    with pytest.raises(DeviceError, match="Camera 0 stopped giving pictures"):
        list(source.frames())
    source.close()


def test_a_slot_holds_the_newest_thing_only() -> None:
    slot: NewestSlot[int] = NewestSlot()
    for thing in (1, 2, 3):
        slot.put(thing)
    assert slot.take(0.0) == 3
    assert slot.take(0.0) is None
    assert slot.dropped == 2


def test_every_frame_of_a_video_comes_in_order(tmp_path: Path) -> None:
    pictures = [np.full((48, 64, 3), 20 * number, dtype=np.uint8) for number in range(12)]
    source = open_source(str(write_video(tmp_path / "a.mp4", pictures, fps=12.5)), warned)
    assert (source.facts.kind, source.facts.size, source.facts.fps) == (Kind.VIDEO, (64, 48), 12.5)
    assert source.facts.total == 12
    frames = list(source.frames())
    source.close()
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.seconds for frame in frames] == [number / 12.5 for number in range(12)]
    levels = [float(frame.picture.mean()) for frame in frames]
    np.testing.assert_allclose(levels, [20 * number for number in range(12)], atol=4)


def test_a_video_that_ends_early_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut.mp4").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: FakeCapture(5))
    warnings: list[str] = []
    source = open_source(str(tmp_path / "cut.mp4"), warnings.append)
    assert len(list(source.frames())) == 5
    assert warnings == ["cut.mp4 ended after 5 of 100 frames: it may be damaged."]


def test_a_folders_pictures_come_in_natural_order_and_broken_ones_are_named(tmp_path: Path) -> None:
    for name, level in (("10.png", 100), ("2.png", 20), ("1.JPG", 10)):
        cv2.imwrite(str(tmp_path / name), np.full((30, 40, 3), level, dtype=np.uint8))
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    warnings: list[str] = []
    source = open_source(str(tmp_path), warnings.append)
    assert source.facts.kind is Kind.FOLDER
    frames = list(source.frames())
    assert [(frame.index, frame.name) for frame in frames] == [(0, "1.JPG"), (1, "2.png"), (2, "10.png")]
    assert [int(frame.picture[0, 0, 0]) for frame in frames] == [10, 20, 100]
    assert warnings == ["3.png cannot be read as a picture and is left out."]


def test_grey_and_transparent_pictures_become_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((30, 40), 7, dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((30, 40, 4), 9, dtype=np.uint8))
    shapes = [frame.picture.shape for frame in open_source(str(tmp_path), warned).frames()]
    assert shapes == [(30, 40, 3), (30, 40, 3)]


def test_one_picture_is_a_source(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), frame_with([]))
    source = open_source(str(tmp_path / "a.png"), warned)
    assert (source.facts.kind, source.facts.total, source.facts.size) == (Kind.IMAGE, 1, (320, 240))
    assert len(list(source.frames())) == 1


NOT_UTF8 = os.fsdecode(b"\xe9t\xe9")


def test_pictures_are_read_whatever_their_name(tmp_path: Path) -> None:
    _, content = cv2.imencode(".png", frame_with([]))
    (tmp_path / f"{NOT_UTF8}.png").write_bytes(content.tobytes())
    (tmp_path / f"{NOT_UTF8}2.png").write_bytes(b"no picture")
    (tmp_path / f"{NOT_UTF8}3.png").touch()
    warnings: list[str] = []
    source = open_source(str(tmp_path), warnings.append)
    assert [(frame.name, frame.picture.shape) for frame in source.frames()] == [("\ufffdt\ufffd.png", (240, 320, 3))]
    assert warnings == [f"\ufffdt\ufffd{number}.png cannot be read as a picture and is left out." for number in (2, 3)]
    assert len(list(open_source(str(tmp_path / f"{NOT_UTF8}.png"), warned).frames())) == 1


def test_a_picture_beyond_all_bounds_is_left_out_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DeviceError, match="is not a picture that OpenCV can read"):
        open_source(str(tmp_path / "a.png"), warned)


def test_a_film_whose_name_opencv_does_not_take_is_one_sentence(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [frame_with([])]).rename(tmp_path / f"{NOT_UTF8}.mp4")
    with pytest.raises(DeviceError, match=r"The name of .*/\ufffdt\ufffd\.mp4 is not valid UTF-8, .*: use another name"):
        open_source(str(tmp_path / f"{NOT_UTF8}.mp4"), warned)


@pytest.mark.parametrize("text", ["9" * 10, "9" * 5000, "/dev/video" + "9" * 21])
def test_an_index_too_large_for_opencv_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="A camera's index has at most 9 digits: --source takes one"):
        open_source(text, warned)
