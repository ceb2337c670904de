"""A camera read in its own thread, the newest frame winning: lateness never piles up behind a slow loop.

Called by `source.CameraSource`.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import DeviceError

T = TypeVar("T")

PATIENCE_SECONDS = 10.0
"""How long a camera may give no picture before it counts as gone."""


class NewestSlot(Generic[T]):
    """Holds one thing; putting the next one drops what nobody took."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._thing: T | None = None
        self._closed = False
        self.dropped = 0

    def put(self, thing: T) -> None:
        """Replace what is held, and wake whoever waits in `take`."""
        with self._ready:
            self.dropped += self._thing is not None
            self._thing = thing
            self._ready.notify()

    def take(self, timeout: float) -> T | None:
        """The newest thing, waiting up to `timeout` seconds for it; None when nothing came or the slot closed."""
        with self._ready:
            self._ready.wait_for(lambda: self._thing is not None or self._closed, timeout)
            thing, self._thing = self._thing, None
            return thing

    def close(self) -> None:
        """Nothing more will come."""
        with self._ready:
            self._closed = True
            self._ready.notify()


class Capture(Protocol):
    """What of `cv2.VideoCapture` is used."""

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]: ...

    def get(self, what: int) -> float: ...

    def release(self) -> None: ...


class ReadInThread:
    """What a thread of its own reads pictures from, until `close`."""

    _capture: Capture
    _thread: threading.Thread

    def __init__(self) -> None:
        self._slot: NewestSlot[tuple[NDArray[np.uint8], float]] = NewestSlot()
        self._stop = threading.Event()

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before the loop could take them."""
        return self._slot.dropped

    def close(self) -> None:
        """Stop reading and hang up. Safe to call twice."""
        self._stop.set()
        self._slot.close()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        if not self._thread.is_alive():
            self._capture.release()


class CameraReader(ReadInThread):
    """An opened camera.

    Attributes:
        first: (H, W, 3) uint8, the picture that proved that it works.
        fps: its frame rate by its own word; 0 when it does not say.
        started: when `newest` began, by `time.monotonic`.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self._capture: Capture = cv2.VideoCapture(index)  # type: ignore[assignment]
        ok, first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not ok or first is None:
            opened = self._capture.isOpened()
            self._capture.release()
            raise DeviceError(_why_not(index, opened))
        self.first: NDArray[np.uint8] = np.asarray(first, dtype=np.uint8)
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.started = time.monotonic()
        super().__init__()
        self._thread = threading.Thread(target=self._pump, name="camera", daemon=True)

    def newest(self) -> Iterator[tuple[NDArray[np.uint8], float]]:
        """The newest picture each time one is asked for, with the seconds since the first, until `close`.

        Raises:
            DeviceError: the camera stopped giving pictures.
        """
        self.started = time.monotonic()
        self._thread.start()
        yield self.first, 0.0
        while (taken := self._slot.take(PATIENCE_SECONDS)) is not None:
            yield taken
        if not self._stop.is_set():
            raise DeviceError(f"Camera {self.index} stopped giving pictures; check its cable and that no other program took it.")

    def _pump(self) -> None:
        last = self.started
        while not self._stop.is_set():
            ok, picture = self._capture.read()
            now = time.monotonic()
            if ok and picture is not None:
                last = now
                self._slot.put((np.asarray(picture, dtype=np.uint8), now - self.started))
            elif now - last > PATIENCE_SECONDS / 5:
                break
            else:
                self._stop.wait(0.05)
        self._slot.close()


def _why_not(index: int, opened: bool) -> str:
    device = Path(f"/dev/video{index}")
    if opened:
        why = "opens but gives no picture: another program may hold it, or it is not allowed to be used here"
    elif sys.platform == "linux" and device.exists() and not os.access(device, os.R_OK | os.W_OK):
        why = f"may not be used by this account: it needs to read and write {device} (group video)"
    else:
        why = "was not found"
    return f"Camera {index} {why}; --source also takes another index, a video, a picture or a folder of pictures."
