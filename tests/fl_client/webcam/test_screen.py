import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from common.errors import DeviceError
from fl_client.webcam.keys import KEYS, Action, View, action
from fl_client.webcam.marks import NOTHING, RED, Marks, marked
from fl_client.webcam.recorder import Outputs, Recorder
from fl_client.webcam.screen import MESSAGE_SECONDS, MarkedWindow, Screen
from fl_client.webcam.seen import UNSURE, Face, Pace, Seen
from fl_client.webcam.source import Frame
from fl_client.webcam.window import QUIT

from .conftest import CLASSES, loop_model

PICTURE = np.full((240, 320, 3), 128, dtype=np.uint8)
BOX = (100, 80, 90, 90)


@dataclass
class Clock:
    time: float = 0.0

    def __call__(self) -> float:
        return self.time


@dataclass
class Tape:
    """A recorder that only counts."""

    path: Path = Path("tape.mp4")
    frames: int = 0

    def write(self, seen: Seen) -> None:
        self.frames += 1

    def keep(self) -> bool:
        return self.frames > 0

    def discard(self) -> None: ...


@dataclass
class Shown:
    """A window that plays keys."""

    keys: list[str] = field(default_factory=list)
    canvases: list[NDArray[np.uint8]] = field(default_factory=list)
    waits: list[float | None] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def show(self, canvas: NDArray[np.uint8]) -> None:
        self.canvases.append(canvas)

    def key(self, wait: float | None = 0.0) -> str:
        self.waits.append(wait)
        self.clock.time += wait or 0.0
        return self.keys.pop(0) if self.keys else ""

    def close(self) -> None: ...


def face(label: str, box: tuple[int, int, int, int] = BOX) -> Face:
    shares = [(name, 0.6 if name == label else 0.4 / (len(CLASSES) - 1)) for name in CLASSES]
    return Face(box, tuple(sorted(shares, key=lambda pair: -pair[1])), label, track=4)


def seen(*faces: Face) -> Seen:
    return Seen(Frame(0, PICTURE, 0.0), faces, PICTURE.copy(), "run demo round 1 #1")


def painted(screen: Screen, *faces: Face, seconds: float = 0.0) -> NDArray[np.uint8]:
    return screen.paint(Frame(0, PICTURE, seconds), faces, loop_model(), Pace(20.0, 30.0))


def red(canvas: NDArray[np.uint8]) -> int:
    return int((canvas == np.array(RED, dtype=np.uint8)).all(axis=2).sum())


@pytest.mark.parametrize(
    ("key", "switched"), [("h", "heatmap"), ("M", "mirror"), ("i", "numbers"), ("t", "quotes"), ("?", "help")]
)
def test_a_key_switches_its_part_of_the_view_on_and_off(key: str, switched: str) -> None:
    screen = Screen(Outputs([], live=True))
    assert screen.pressed(key, seen())
    assert screen.view == View(**{switched: True})
    assert screen.pressed(key, seen())
    assert screen.view == View()


def test_the_help_names_every_key_that_does_something() -> None:
    named = {{"space": " "}.get(key, key) for key, _ in KEYS}
    doing = {chr(code) for code in range(32, 127) if View().pressed(chr(code)) or action(chr(code))}
    assert {key.lower() for key in doing} == named
    assert action(QUIT) is Action.QUIT


def test_a_key_that_means_nothing_changes_nothing() -> None:
    screen = Screen(Outputs([], live=True))
    assert not screen.pressed("x", seen())
    assert (screen.view, screen.paused, screen.marks()) == (View(), False, NOTHING)


def test_space_pauses_what_moves_and_goes_on_among_stills() -> None:
    moving, stills = Screen(Outputs([], live=True)), Screen(Outputs([], live=False), stills=True)
    assert moving.pressed(" ", seen())
    assert (moving.paused, moving.marks().paused) == (True, True)
    assert moving.pressed(" ", seen())
    assert not moving.paused
    assert not stills.pressed(" ", seen())
    assert not stills.paused


def test_a_snapshot_is_what_is_shown_for_its_owner_only_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260131-120000")
    said: list[tuple[str, bool]] = []
    screen = Screen(Outputs([], live=True), tmp_path / "album", say=lambda *what: said.append(what))
    one = seen()
    for _ in range(2):
        assert screen.pressed("s", one)
    names = ["emofl-20260131-120000-2.png", "emofl-20260131-120000.png"]
    assert sorted(path.name for path in (tmp_path / "album").iterdir()) == names
    for name in names:
        picture = cv2.imread(str(tmp_path / "album" / name))
        np.testing.assert_array_equal(picture, one.canvas)
        assert stat.S_IMODE((tmp_path / "album" / name).stat().st_mode) == 0o600
    assert said == [("Saved emofl-20260131-120000.png.", False), ("Saved emofl-20260131-120000-2.png.", False)]


def test_a_snapshot_that_cannot_be_saved_is_a_warning_and_the_loop_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[tuple[str, bool]] = []
    screen = Screen(Outputs([], live=True), tmp_path / "file", say=lambda *what: said.append(what))
    assert screen.pressed("s", seen())
    ((sentence, warning),) = said
    assert warning
    assert sentence.startswith("The snapshot could not be saved in ")


def test_the_red_mark_is_there_exactly_while_something_is_written() -> None:
    clock, tape, said = Clock(), Tape(), []
    screen = Screen(Outputs([], live=True, begin=lambda: [tape]), now=clock, say=lambda *what: said.append(what))
    assert screen.marks().recording == ""
    screen.pressed("r", seen())
    assert screen.marks().recording == "REC 0:00"
    clock.time = 75.0
    assert screen.marks().recording == "REC 1:15"
    assert red(marked(PICTURE, screen.marks())) > 2 * (240 + 320)
    screen.outputs.write(seen())
    screen.pressed("r", seen())
    assert screen.marks().recording == ""
    assert said == [("Recorded tape.mp4.", False)]
    assert red(marked(PICTURE, screen.marks())) == 0
    always = Screen(Outputs([tape], live=True))
    assert always.marks().recording == "REC 0:00"


def test_a_recording_that_cannot_begin_is_a_warning() -> None:
    def refuse() -> list[Recorder]:
        raise DeviceError("The output cannot be created.")

    said: list[tuple[str, bool]] = []
    screen = Screen(Outputs([], live=True, begin=refuse), say=lambda *what: said.append(what))
    assert screen.pressed("r", seen())
    assert said == [("The output cannot be created.", True)]
    assert screen.marks().recording == ""


def test_a_message_goes_away_by_itself() -> None:
    clock = Clock()
    screen = Screen(Outputs([], live=True), now=clock)
    screen.remind("? shows the keys")
    assert screen.marks().message == "? shows the keys"
    clock.time = MESSAGE_SECONDS
    assert screen.marks() == NOTHING


def test_marks_are_drawn_on_a_copy_so_that_no_file_holds_them() -> None:
    canvas = PICTURE.copy()
    for marks in (Marks("REC 0:01"), Marks(paused=True), Marks(message="Saved."), Marks(help=True)):
        shown = marked(canvas, marks)
        assert (shown != canvas).sum() > 500
        assert (canvas == 128).all()
    assert marked(canvas, NOTHING) is canvas


@pytest.mark.parametrize("size", [(60, 80), (240, 320), (480, 640), (1080, 1920), (2, 3)])
def test_the_help_and_all_marks_can_be_drawn_on_any_frame(size: tuple[int, int]) -> None:
    canvas = np.full((*size, 3), 200, dtype=np.uint8)
    assert marked(canvas, Marks("REC 10:00", True, "Saved emofl-20260131-120000.png.", True)).shape == canvas.shape


def test_the_largest_face_of_which_the_model_is_sure_gets_the_line() -> None:
    screen = Screen(Outputs([], live=True), view=View(quotes=True))
    small, large = face("fear", (10, 90, 40, 40)), face("anger", (200, 90, 80, 80))
    unsure = replace(face("anger", (90, 90, 100, 100)), label=UNSURE)
    assert screen._quote(Frame(0, PICTURE, 0.0), (small, large, unsure))[0] == "anger"
    assert screen._quote(Frame(0, PICTURE, 0.0), (unsure,)) == ("", "")
    screen.view = View()
    assert screen._quote(Frame(0, PICTURE, 0.0), (small, large)) == ("", "")


def test_what_is_painted_follows_the_keys() -> None:
    screen = Screen(Outputs([], live=True))
    plain = painted(screen, face("happiness"))
    screen.pressed("m", seen())
    mirrored = painted(screen, face("happiness"))
    assert (plain[100:160, 98:103] != mirrored[100:160, 98:103]).any()
    screen.pressed("m", seen())
    np.testing.assert_array_equal(painted(screen, face("happiness")), plain)
    screen.pressed("t", seen())
    assert (painted(screen, face("happiness"))[205:] != plain[205:]).any()


def test_a_model_without_a_heatmap_says_so_when_one_is_asked_for() -> None:
    screen = Screen(Outputs([], live=True))
    screen.pressed("h", seen(face("happiness")))
    assert screen.marks().message == "This model gives no heatmap."
    other = Screen(Outputs([], live=True))
    other.pressed("h", seen(replace(face("happiness"), heatmap=np.ones((6, 6), dtype=np.float32))))
    assert other.marks().message == ""


def test_the_window_shows_the_marks_and_renews_them_while_a_picture_stands() -> None:
    clock = Clock()
    shown = Shown(keys=["", "", "", "x"], clock=clock)
    screen = Screen(Outputs([], live=False), now=clock)
    window = MarkedWindow(shown, screen)
    screen.remind("? shows the keys")
    window.show(PICTURE)
    assert (shown.canvases[0] != PICTURE).any()
    clock.time = MESSAGE_SECONDS - 0.3
    assert window.key(None) == "x"
    assert shown.canvases[-1] is PICTURE
    assert len(shown.canvases) == 2


def test_the_window_waits_as_long_as_the_loop_asks_and_no_longer() -> None:
    clock = Clock()
    shown = Shown(clock=clock)
    window = MarkedWindow(shown, Screen(Outputs([], live=True), now=clock))
    window.show(PICTURE)
    assert window.key(0.0) == ""
    assert shown.waits == [0.0]
    assert window.key(0.5) == ""
    assert clock.time == pytest.approx(0.5)


def test_file_names_are_the_time(tmp_path: Path) -> None:
    Screen(Outputs([], live=True), tmp_path).pressed("s", seen())
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"emofl-\d{8}-\d{6}\.png", path.name)
