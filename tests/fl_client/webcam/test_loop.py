from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import DeviceError, ModelError
from fl_client.webcam.classifier import Classifier, Reading
from fl_client.webcam.loop import CameraLoop, LoopSettings, Tally
from fl_client.webcam.model import LoopModel
from fl_client.webcam.recorder import Outputs
from fl_client.webcam.registry import RegistrySource
from fl_client.webcam.seen import UNSURE, Face, Pace, Seen
from fl_client.webcam.smoothing import AS_IT_IS, SmoothingSettings
from fl_client.webcam.source import Frame, Kind
from fl_client.webcam.timings import Timings
from fl_client.webcam.tracking import TrackingSettings
from fl_client.webcam.watcher import ModelWatcher
from fl_client.webcam.window import QUIT

from .conftest import BRIGHT, DARK, FakeDetector, FakeSource, brightness_onnx, frame_with, loop_model, publish, spied

EVERY_FRAME, PLAIN = TrackingSettings(every=1), AS_IT_IS
LEFT, RIGHT = (20, 60, 80, 80), (180, 60, 80, 80)
PICTURE = frame_with([(LEFT, 255), (RIGHT, 0)])
TEXTURED = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


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
        settings=LoopSettings(**{"tracking": EVERY_FRAME, "smoothing": PLAIN, "reread": 0.0} | settings),
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


class Fickle(Classifier):
    """Passes the trial, and fails at the first frame's face or a later one."""

    def __init__(self, version: str, fails_at: int) -> None:
        super().__init__(loop_model(version=version))
        self.fails_at = fails_at

    def read(self, *of: Any, **how: Any) -> Reading:
        self.fails_at -= 1
        if self.fails_at < 0:
            raise ModelError(f"The model {self.model.version} answers with numbers that are not finite.")
        return super().read(*of, **how)


class Offering:
    """In place of a watcher: hands these over, one between any two frames."""

    def __init__(self, *models: Classifier) -> None:
        self.models = list(models)

    def take(self) -> Classifier | None:
        return self.models.pop(0) if self.models else None

    def refusals(self) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("newer", "versions", "given_up"),
    [
        ([("two", 0)], ["first"] * 5, 1),
        ([("two", 2)], ["two", "two", "first", "first", "first"], 1),
        ([("two", 1), ("three", 1), ("four", 1)], ["two", "three", "four", "first", "first"], 2),
        ([("two", 0), ("three", 9)], ["first", "three", "three", "three", "three"], 1),
    ],
)
def test_a_newer_model_that_fails_at_a_face_is_given_up_and_the_loop_goes_on(
    newer: list[tuple[str, int]], versions: list[str], given_up: int
) -> None:
    memory, said = Memory(), []
    loop = loop_over(FakeSource([PICTURE] * 5), memory)
    loop.classifier = Classifier(loop_model(version="first"))
    offering: Any = Offering(*(Fickle(*one) for one in newer))
    loop.watcher = offering
    loop.say = lambda sentence, warning: said.append((sentence, warning))
    loop.run()
    assert [seen.version for seen in memory.seen] == versions
    assert all([face.label for face in seen.faces] == [BRIGHT, DARK] for seen in memory.seen)
    warnings = [sentence for sentence, warning in said if warning]
    assert len(warnings) == given_up
    assert warnings[0].startswith("A newer model is given up: The model ")
    assert warnings[-1].endswith("numbers that are not finite. first is in use again.")


def test_the_model_that_the_loop_began_with_has_none_to_go_back_to() -> None:
    loop = loop_over(FakeSource([PICTURE] * 3), Memory())
    loop.classifier = Fickle("first", 1)
    with pytest.raises(ModelError, match="first answers with numbers that are not finite"):
        loop.run()
    assert loop.tally.frames == 1


def test_the_limit_ends_the_loop() -> None:
    memory = Memory()
    loop_over(FakeSource([PICTURE] * 9), memory, limit=4).run()
    assert len(memory.seen) == 4


def test_below_the_least_confidence_the_loop_is_unsure() -> None:
    memory = Memory()
    detector = FakeDetector((LEFT, (100, 60, 60, 60)))
    loop_over(FakeSource([PICTURE]), memory, detector, smoothing=replace(AS_IT_IS, least=0.5)).run()
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


def test_moving_pictures_have_a_pace_cameras_a_latency_and_stills_neither() -> None:
    known = {}
    for kind in (Kind.VIDEO, Kind.CAMERA, Kind.FOLDER):
        paces: list[Pace] = []

        def paint(frame: Frame, faces: tuple[Face, ...], model: LoopModel, pace: Pace) -> NDArray[np.uint8]:
            paces.append(pace)  # noqa: B023
            return frame.picture

        loop = loop_over(FakeSource([PICTURE] * 3, kind), Memory())
        loop.painter = paint
        loop.run()
        known[kind] = (paces[-1].fps is not None, paces[-1].latency is not None)
    assert known == {Kind.VIDEO: (True, False), Kind.CAMERA: (True, True), Kind.FOLDER: (False, False)}


def test_faces_keep_their_numbers_and_are_followed_between_detections() -> None:
    memory = Memory()
    detector = FakeDetector((LEFT, RIGHT))
    loop_over(FakeSource([TEXTURED] * 6), memory, detector, tracking=TrackingSettings(every=3)).run()
    assert detector.calls == 2
    assert [[face.track for face in seen.faces] for seen in memory.seen] == [[1, 2]] * 6
    assert {tuple(face.box for face in seen.faces) for seen in memory.seen} == {(LEFT, RIGHT)}


def test_a_reading_holds_for_a_while_and_new_faces_are_read_at_once() -> None:
    memory = Memory()
    people = [(LEFT,), (LEFT,), (LEFT, RIGHT), (LEFT, RIGHT), (LEFT, RIGHT), (LEFT, RIGHT), (LEFT, RIGHT), (LEFT, RIGHT)]
    detector = FakeDetector()

    def appear(frame: int) -> None:
        detector.boxes = people[frame]

    detector.before = appear
    loop = loop_over(FakeSource([PICTURE] * 8, fps=10), memory, detector, reread=0.15)
    spy = spied(loop.classifier)
    loop.run()
    assert [batch.shape[0] for batch in spy.batches] == [1, 2, 2, 2]
    assert all(len(seen.faces) == len(boxes) for seen, boxes in zip(memory.seen, people, strict=True))
    assert [face.label for face in memory.seen[3].faces] == [BRIGHT, DARK]


def test_a_frame_that_was_searched_is_not_also_read_unless_it_must() -> None:
    memory = Memory()
    loop = loop_over(FakeSource([TEXTURED] * 9, fps=10), memory, tracking=TrackingSettings(every=3), reread=0.25)
    spy = spied(loop.classifier)
    read_at = []
    session_run = spy.run

    def run(outputs: list[str], inputs: dict[str, NDArray[np.float32]]) -> Any:
        read_at.append(len(memory.seen))
        return session_run(outputs, inputs)

    spy.run = run  # type: ignore[method-assign]
    loop.run()
    assert read_at == [0, 4, 7]


def test_one_odd_frame_does_not_change_a_steady_label() -> None:
    odd = frame_with([(LEFT, 0)])
    memory = Memory()
    settings = {"smoothing": SmoothingSettings(seconds=0.4), "reread": 0.0}
    loop_over(FakeSource([PICTURE] * 5 + [odd] + [PICTURE] * 2, fps=30), memory, FakeDetector((LEFT,)), **settings).run()
    assert [seen.faces[0].label for seen in memory.seen] == [BRIGHT] * 8
    assert memory.seen[5].faces[0].confidence < memory.seen[4].faces[0].confidence


def test_stills_are_neither_followed_nor_smoothed() -> None:
    memory = Memory()
    detector = FakeDetector((LEFT,))
    pictures = [frame_with([(LEFT, level)]) for level in (255, 0, 255)]
    defaults = {"tracking": TrackingSettings(), "smoothing": SmoothingSettings(), "reread": 9.0}
    loop_over(FakeSource(pictures, Kind.FOLDER), memory, detector, **defaults).run()
    assert detector.calls == 3
    assert [seen.faces[0].label for seen in memory.seen] == [BRIGHT, DARK, BRIGHT]


def test_a_key_may_have_the_same_frame_drawn_again() -> None:
    marks = [10]

    def paint(frame: Frame, faces: tuple[Face, ...], model: LoopModel, pace: Pace) -> NDArray[np.uint8]:
        return np.full_like(frame.picture, marks[0])

    def pressed(key: str, seen: Seen) -> bool:
        marks[0] += 1
        return key == "m"

    loop = loop_over(FakeSource([PICTURE] * 2), Memory())
    loop.window = window = FakeWindow("m", "x", "")
    loop.painter, loop.on_key = paint, pressed
    loop.run()
    assert [int(canvas[0, 0, 0]) for canvas in window.shown] == [10, 11, 12]


def test_a_pause_holds_the_frame_until_it_ends_and_quitting_works_in_it() -> None:
    for keys, frames in ((("p", "", "", "p"), 3), (("p", "", QUIT), 1)):
        memory = Memory()
        loop = loop_over(FakeSource([PICTURE] * 3), memory)
        loop.window = window = FakeWindow(*keys)

        def pressed(key: str, seen: Seen, loop: CameraLoop = loop) -> bool:
            loop.paused = not loop.paused
            return False

        loop.on_key = pressed
        loop.run()
        assert len(memory.seen) == len(window.shown) == frames


def test_a_still_goes_on_with_a_key_that_draws_nothing_anew() -> None:
    loop = loop_over(FakeSource([PICTURE] * 2, Kind.FOLDER), Memory())
    loop.window = window = FakeWindow("m", "m", " ", " ")
    loop.on_key = lambda key, seen: key == "m"
    loop.run()
    assert len(window.shown) == 4


def test_the_summary_tells_frames_faces_pace_and_where_the_time_went() -> None:
    ticks = iter([0.0, 0.2, 0.2, 0.22, 1.0, 1.2])
    timings = Timings(clock=lambda: next(ticks))
    for stage in ("detect", "classify"):
        with timings.stage(stage):
            pass
    timings.next_frame()
    with timings.stage("detect"):
        pass
    timings.next_frame()
    tally = Tally(frames=2, faces=1, swaps=1, elapsed=2.0, timings=timings)
    assert tally.summary(dropped=3) == (
        "2 frames; 1 face; 1.0 FPS on average; per frame: detect 200.0 ms, classify 10.0 ms; "
        "1 newer model taken over; 3 stale camera frames left out."
    )
    assert Tally().summary() == "No frame was processed."
