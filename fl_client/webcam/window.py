"""A window for the annotated frames: OpenCV's where it was built with one, else tkinter's, else one clear sentence.

The loop shows each frame and asks for a key; nothing but q, Esc and closing the window means anything yet.
"""

import os
import sys
import time
from collections import deque
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import DeviceError

QUIT = "quit"
"""What `key` returns for q, Esc and a closed window."""

HINT = "use --headless --output out.mp4 to write what would be shown."
POLL_SECONDS = 0.01
ESCAPE = 27
FIRST_SIZE = (1280, 720)
"""Pixels that a new OpenCV window has at most; the person may enlarge it."""


class Window(Protocol):
    """Shows frames and reads keys."""

    def show(self, canvas: NDArray[np.uint8]) -> None:
        """Replace what is shown by a (H, W, 3) uint8 blue-green-red picture."""
        ...

    def key(self, wait: float | None = 0.0) -> str:
        """The key pressed within `wait` seconds (None: for as long as it takes), `QUIT`, or "" for none."""
        ...

    def close(self) -> None: ...


class OpenCvWindow:
    """OpenCV's own window, resizable."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._sized = False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise DeviceError(f"OpenCV cannot open a window here; {HINT}") from error

    def show(self, canvas: NDArray[np.uint8]) -> None:
        if not self._sized:
            rows, columns = canvas.shape[:2]
            scale = min(1.0, FIRST_SIZE[0] / columns, FIRST_SIZE[1] / rows)
            cv2.resizeWindow(self._title, max(1, int(columns * scale)), max(1, int(rows * scale)))
            self._sized = True
        cv2.imshow(self._title, canvas)

    def key(self, wait: float | None = 0.0) -> str:
        deadline = None if wait is None else time.monotonic() + wait
        while True:
            pressed = cv2.waitKey(1) & 0xFF
            if pressed in (ord("q"), ord("Q"), ESCAPE) or self._closed():
                return QUIT
            if pressed != 0xFF:
                return chr(pressed)
            if deadline is not None and time.monotonic() >= deadline:
                return ""
            time.sleep(POLL_SECONDS if deadline is None else min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def close(self) -> None:
        cv2.destroyAllWindows()

    def _closed(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:
            return True


class TkWindow:
    """A tkinter window, which most Pythons carry; frames larger than the screen are shown reduced."""

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise DeviceError(f"This OpenCV has no windows and this Python no tkinter; {HINT}") from error
        try:
            self._root: Any = tkinter.Tk()
        except tkinter.TclError as error:
            raise DeviceError(f"No display can be opened; {HINT}") from error
        self._keys: deque[str] = deque()
        self._closed = False
        self._root.title(title)
        self._root.resizable(False, False)
        self._root.bind("<Key>", self._pressed)
        self._root.bind("<Destroy>", self._destroyed)
        self._picture: Any = tkinter.PhotoImage(master=self._root)
        tkinter.Label(self._root, image=self._picture, borderwidth=0).pack()
        self._room = (0.95 * self._root.winfo_screenwidth(), 0.9 * self._root.winfo_screenheight())

    def show(self, canvas: NDArray[np.uint8]) -> None:
        if self._closed:
            return
        rows, columns = canvas.shape[:2]
        scale = min(1.0, self._room[0] / columns, self._room[1] / rows)
        if scale < 1.0:
            to = (max(1, int(columns * scale)), max(1, int(rows * scale)))
            canvas = np.asarray(cv2.resize(canvas, to, interpolation=cv2.INTER_AREA), dtype=np.uint8)
            rows, columns = canvas.shape[:2]
        pixels = np.ascontiguousarray(canvas[:, :, ::-1]).tobytes()
        self._picture.configure(data=b"P6 %d %d 255\n" % (columns, rows) + pixels, format="PPM")
        self._root.update()

    def key(self, wait: float | None = 0.0) -> str:
        deadline = None if wait is None else time.monotonic() + wait
        while True:
            if not self._closed:
                self._root.update()
            if self._closed:
                return QUIT
            if self._keys:
                return self._keys.popleft()
            if deadline is not None and time.monotonic() >= deadline:
                return ""
            time.sleep(POLL_SECONDS if deadline is None else min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def close(self) -> None:
        if not self._closed:
            self._root.destroy()

    def _pressed(self, event: Any) -> None:
        if event.keysym in ("q", "Q", "Escape"):
            self._keys.append(QUIT)
        elif event.char:
            self._keys.append(event.char)

    def _destroyed(self, event: Any) -> None:
        if event.widget is self._root:
            self._closed = True


def open_window(title: str) -> Window:
    """The best window that this machine has.

    Raises:
        DeviceError: there is no display, or nothing that can open a window.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DeviceError(f"There is no display here; {HINT}")
    if not opencv_has_windows():
        return TkWindow(title)
    if sys.platform == "linux":
        _probe_display()
    return OpenCvWindow(title)


def opencv_has_windows() -> bool:
    """Whether the installed OpenCV was built with a user interface; the headless wheels were not."""
    try:
        return bool(cv2.currentUIFramework())
    except (AttributeError, cv2.error):
        return False


def _probe_display() -> None:
    """Qt, inside OpenCV, ends the whole process when a display refuses it; tkinter says so politely."""
    try:
        import tkinter
    except ImportError:
        return
    try:
        tkinter.Tk().destroy()
    except tkinter.TclError as error:
        raise DeviceError(f"No display can be opened; {HINT}") from error
