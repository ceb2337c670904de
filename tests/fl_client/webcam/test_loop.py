from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import DeviceError
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.loop import CameraLoop, LoopSettings, Tally
from fl_client.webcam.recorder import Outputs
from fl_client.webcam.registry import RegistrySource
from fl_client.webcam.seen import UNSURE, Seen
from fl_client.webcam.source import Kind
from fl_client.webcam.watcher import ModelWatcher
from fl_client.webcam.window import QUIT

from .conftest import BRIGHT, DARK, FakeDetector, FakeSource, brightness_onnx, frame_with, loop_model, publish, spied

LEFT, RIGHT = (20, 60, 80, 80), (180, 60, 80, 80)
PICTURE = frame_with([(LEFT, 255), (RIGHT, 0)])


class Memory:
    """A recorder that keeps what it gets."""

    path = Path("memory")

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def write(self, seen: Seen) -> None:
        self.seen.append(seen)

    def keep(self) -> bool:
        return True

    def discard(self) -> None:
        self.seen.clear()


class FakeWindow:
    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.shown: list[NDArray[np.uint8]] = []
        self.waits: list[float | None] = []

    def show(self, canvas: NDArray[np.uint8]) -> None:
        self.shown.append(canvas)

    def key(self, wait: float | None = 0.0) -> str:
        self.waits.append(wait)
        return self.keys.pop(0) if self.keys else ""

    def close(self) -> None: ...


def loop_over(source: FakeSource, memory: Memory, detector: FakeDetector | None = None, **settings: Any) -> CameraLoop:
    return CameraLoop(
        source=source,
        detector=detector or FakeDetector((LEFT, RIGHT)),
        classifier=Classifier(loop_model()),
        outputs=Outputs([memory], source.kind.live),
        settings=LoopSettings(**settings),
    )


def test_every_face_of_a_frame_gets_its_own_label_in_one_inference() -> None:
    memory = Memory()
    loop = loop_over(FakeSource([PICTURE] * 3), memory)
    spy = spied(loop.classifier)
    loop.run()
    assert [[face.label for face in seen.faces] for seen in memory.seen] == [[BRIGHT, DARK]] * 3
    assert [batch.shape[0] for batch in spy.batches] == [2, 2, 2]
    assert (loop.tally.frames, loop.tally.faces) == (3, 6)


def test_a_newer_model_takes_over_between_two_frames(registry: Path) -> None:
    """Published while frame 1 is in work, it labels frame 2: neither a frame of two models nor a dropped one."""
    models = RegistrySource(registry)
    classifier = Classifier(models.newest())
    watcher = ModelWatcher(models, classifier, Classifier)

    def during(frame: int) -> None:
        if frame == 1:
            publish(registry, 2, content=brightness_onnx(sharpness=-4.0))
            watcher.look()

    memory, said = Memory(), []
    loop = loop_over(FakeSource([PICTURE] * 4), memory, FakeDetector((LEFT, RIGHT), before=during))
    loop.classifier, loop.watcher = classifier, watcher
    loop.say = lambda sentence, warning: said.append((sentence, warning))
    loop.run()
    assert [seen.frame.index for seen in memory.seen] == [0, 1, 2, 3]
    assert [seen.version for seen in memory.seen] == ["run demo round 1 #1"] * 2 + ["run demo round 2 #2"] * 2
    assert [seen.faces[0].label for seen in memory.seen] == [BRIGHT, BRIGHT, DARK, DARK]
    assert said == [("Now run demo round 2 #2: record-level epsilon 7.9.", False)]
    assert loop.tally.swaps == 1
    first, last = memory.seen[1].canvas[:45, :200], memory.seen[2].canvas[:45, :200]
    assert (first != last).any()


def test_a_bad_newer_model_is_a_warning_and_the_old_one_goes_on(registry: Path) -> None:
    models = RegistrySource(registry)
    classifier = Classifier(models.newest())
    watcher = ModelWatcher(models, classifier, Classifier)

    def during(frame: int) -> None:
        if frame == 0:
            onnx_file = publish(registry, 2).folder / "model.onnx"
            onnx_file.write_bytes(b"altered")
        watcher.look()

    memory, said = Memory(), []
    loop = loop_over(FakeSource([PICTURE] * 4), memory, FakeDetector((LEFT,), before=during))
    loop.classifier, loop.watcher = classifier, watcher
    loop.say = lambda sentence, warning: said.append((sentence, warning))
    loop.run()
    assert [seen.version for seen in memory.seen] == ["run demo round 1 #1"] * 4
    ((sentence, warning),) = said
    assert warning
    assert sentence.startswith("A newer model is refused: ")
    assert sentence.endswith("run demo round 1 #1 stays in use.")


def test_the_limit_ends_the_loop() -> None:
    memory = Memory()
    loop_over(FakeSource([PICTURE] * 9), memory, limit=4).run()
    assert len(memory.seen) == 4


def test_mirroring_changes_the_picture_and_not_what_the_model_sees() -> None:
    plain, mirrored = Memory(), Memory()
    loops = (
        loop_over(FakeSource([PICTURE]), plain),
        loop_over(FakeSource([PICTURE]), mirrored, mirror=True),
    )
    spies = [spied(loop.classifier) for loop in loops]
    for loop in loops:
        loop.run()
    assert spies[0].batches[0].tobytes() == spies[1].batches[0].tobytes()
    assert plain.seen[0].faces == mirrored.seen[0].faces
    np.testing.assert_array_equal(plain.seen[0].canvas[100, 40], mirrored.seen[0].canvas[100, 320 - 1 - 40])
    assert (plain.seen[0].canvas[100, 40] == 255).all()


def test_below_the_least_confidence_the_loop_is_unsure() -> None:
    memory = Memory()
    detector = FakeDetector((LEFT, (100, 60, 60, 60)))
    loop_over(FakeSource([PICTURE]), memory, detector, least=0.5).run()
    assert [face.label for face in memory.seen[0].faces] == [BRIGHT, UNSURE]


def test_a_frame_without_faces_is_shown_and_counted() -> None:
    memory = Memory()
    loop = loop_over(FakeSource([PICTURE]), memory, FakeDetector())
    loop.run()
    assert (loop.tally.frames, loop.tally.faces) == (1, 0)
    assert memory.seen[0].faces == ()


def test_quitting_ends_after_the_frame_that_is_shown() -> None:
    memory = Memory()
    loop = loop_over(FakeSource([PICTURE] * 9), memory)
    window = FakeWindow("", "", QUIT)
    loop.window = window
    loop.run()
    assert len(window.shown) == len(memory.seen) == 3
    assert window.shown[0] is memory.seen[0].canvas


def test_a_picture_stays_until_a_key_is_pressed_and_a_camera_never_waits() -> None:
    for kind, waits in ((Kind.FOLDER, [None, None]), (Kind.CAMERA, [0.0, 0.0])):
        loop = loop_over(FakeSource([PICTURE] * 2, kind), Memory())
        loop.window = window = FakeWindow(*(["x", "x"] if kind is Kind.FOLDER else []))
        loop.run()
        assert window.waits == waits


def test_a_video_in_a_window_waits_for_each_frames_time() -> None:
    loop = loop_over(FakeSource([PICTURE] * 2, fps=0.001), Memory())
    loop.window = window = FakeWindow()
    loop.run()
    first, second = window.waits
    assert first is not None
    assert second is not None
    assert 900 < first <= 1000
    assert 1900 < second <= 2000


def test_a_camera_that_is_lost_ends_the_loop_with_its_sentence() -> None:
    loop = loop_over(FakeSource([PICTURE], Kind.CAMERA, error=DeviceError("Camera 0 stopped giving pictures.")), Memory())
    with pytest.raises(DeviceError, match="stopped giving pictures"):
        loop.run()
    assert loop.tally.frames == 1


def test_frames_per_second_are_shown_for_moving_pictures_only() -> None:
    corners = []
    for kind in (Kind.VIDEO, Kind.FOLDER):
        memory = Memory()
        loop_over(FakeSource([PICTURE] * 3, kind), memory).run()
        corners.append(memory.seen[2].canvas[:15, -50:])
    assert (corners[0] != 128).any()
    assert (corners[1] == 128).all()


def test_the_summary_tells_frames_faces_pace_and_where_the_time_went() -> None:
    tally = Tally(frames=4, faces=1, swaps=1, elapsed=2.0, spent={"detect": 0.4, "classify": 0.04, "draw": 0.004})
    assert tally.summary(dropped=3) == (
        "4 frames; 1 face; 2.0 FPS on average; per frame: detect 100.0 ms, classify 10.0 ms, draw 1.0 ms; "
        "1 newer model taken over; 3 stale camera frames left out."
    )
    assert Tally().summary() == "No frame was processed."
