import builtins
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from common.errors import DeviceError
from fl_client.webcam import window
from fl_client.webcam.window import QUIT, OpenCvWindow, TkWindow, open_window

PICTURE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


class FakeTk:
    """What the window uses of a tkinter root, on a 640x480 screen; `events` run one by one in `update`."""

    def __init__(self) -> None:
        self.bound: dict[str, Callable[[Any], None]] = {}
        self.events: list[Callable[[], None]] = []
        self.updates = 0

    def title(self, text: str) -> None: ...

    def resizable(self, width: bool, height: bool) -> None: ...

    def bind(self, event: str, action: Callable[[Any], None]) -> None:
        self.bound[event] = action

    def winfo_screenwidth(self) -> int:
        return 640

    def winfo_screenheight(self) -> int:
        return 480

    def update(self) -> None:
        self.updates += 1
        if self.events:
            self.events.pop(0)()

    def destroy(self) -> None:
        self.bound["<Destroy>"](SimpleNamespace(widget=self))

    def press(self, keysym: str, char: str = "") -> None:
        self.events.append(lambda: self.bound["<Key>"](SimpleNamespace(keysym=keysym, char=char)))


class FakePicture:
    def __init__(self, master: FakeTk) -> None:
        self.data = b""

    def configure(self, data: bytes, format: str) -> None:
        assert format == "PPM"
        self.data = data


@pytest.fixture
def tk(monkeypatch: pytest.MonkeyPatch) -> type[FakeTk]:
    """A tkinter that needs no display."""
    module = ModuleType("tkinter")
    for name, value in {
        "Tk": FakeTk,
        "TclError": RuntimeError,
        "PhotoImage": FakePicture,
        "Label": lambda root, image, borderwidth: SimpleNamespace(pack=lambda: None),
    }.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "tkinter", module)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window, "opencv_has_windows", lambda: False)
    return FakeTk


@pytest.mark.usefixtures("tk")
def test_without_windows_in_opencv_tkinter_shows_the_very_pixels() -> None:
    shown = open_window("emofl")
    assert isinstance(shown, TkWindow)
    shown.show(PICTURE)
    assert shown._picture.data == b"P6 3 2 255\n" + PICTURE[:, :, ::-1].tobytes()


@pytest.mark.usefixtures("tk")
def test_a_frame_larger_than_the_screen_is_shown_reduced() -> None:
    shown = TkWindow("emofl")
    shown.show(np.zeros((1080, 1920, 3), dtype=np.uint8))
    assert shown._picture.data.startswith(b"P6 608 342 255\n")
    assert len(shown._picture.data) == len(b"P6 608 342 255\n") + 608 * 342 * 3


@pytest.mark.usefixtures("tk")
@pytest.mark.parametrize(("keysym", "char", "meaning"), [("q", "q", QUIT), ("Escape", "\x1b", QUIT), ("m", "m", "m")])
def test_a_key_is_what_it_says_and_q_or_escape_quits(keysym: str, char: str, meaning: str) -> None:
    shown = TkWindow("emofl")
    shown._root.press("Shift_L")
    shown._root.press(keysym, char)
    assert shown.key(None) == meaning
    assert shown.key(0.0) == ""


@pytest.mark.usefixtures("tk")
def test_closing_the_window_quits_for_good() -> None:
    shown = TkWindow("emofl")
    shown._root.events.append(shown._root.destroy)
    assert shown.key(None) == QUIT
    updates = shown._root.updates
    shown.show(PICTURE)
    assert shown.key(0.0) == QUIT
    shown.close()
    assert shown._root.updates == updates


def test_no_display_is_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(DeviceError, match="There is no display here; use --headless --output"):
        open_window("emofl")


@pytest.mark.parametrize("opencv_too", [False, True])
def test_a_display_that_refuses_is_one_sentence(tk: type[FakeTk], opencv_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("couldn't connect to display")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.modules["tkinter"], "Tk", refuse)
    monkeypatch.setattr(window, "opencv_has_windows", lambda: opencv_too)
    with pytest.raises(DeviceError, match="No display can be opened; use --headless --output"):
        open_window("emofl")


def test_neither_opencv_windows_nor_tkinter_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_tkinter(name: str, *rest: Any) -> Any:
        if name == "tkinter":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_tkinter)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window, "opencv_has_windows", lambda: False)
    with pytest.raises(DeviceError, match="no windows and this Python no tkinter; use --headless"):
        open_window("emofl")


class FakeGui:
    """OpenCV's functions for windows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[int] = []
        self.size: tuple[int, int] | None = None
        self.visible = True
        for name, action in {
            "namedWindow": lambda title, flags: None,
            "resizeWindow": lambda title, width, height: setattr(self, "size", (width, height)),
            "imshow": lambda title, canvas: None,
            "waitKey": lambda wait: self.keys.pop(0) if self.keys else -1,
            "getWindowProperty": self.look,
            "destroyAllWindows": lambda: None,
        }.items():
            monkeypatch.setattr(cv2, name, action)

    def look(self, title: str, what: int) -> float:
        if not self.visible:
            raise cv2.error("NULL window")
        return 1.0


def test_opencvs_window_means_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    gui = FakeGui(monkeypatch)
    shown = OpenCvWindow("emofl")
    shown.show(np.zeros((1080, 1920, 3), dtype=np.uint8))
    assert gui.size == (1280, 720)
    gui.keys = [-1, ord("m"), ord("q"), 27]
    assert [shown.key(None), shown.key(None), shown.key(None), shown.key(0.0)] == ["m", QUIT, QUIT, ""]
    gui.visible = False
    assert shown.key(None) == QUIT


def test_an_opencv_that_cannot_open_a_window_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(title: str, flags: int) -> None:
        raise cv2.error("not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(DeviceError, match="OpenCV cannot open a window here; use --headless"):
        OpenCvWindow("emofl")
