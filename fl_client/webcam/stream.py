"""A network camera by its rtsp:// address: the one network connection that the loop makes, and only because its user asks.

`fl-client webcam --source rtsp://...` opens one. It is read in a thread of its own, the newest frame winning; when it is lost
it is opened again, after pauses that grow. Nobody is told the password: messages name host and path alone.
"""

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DeviceError
from fl_client.webcam import paint
from fl_client.webcam.camera import Capture, ReadInThread
from fl_client.webcam.overlay import letters_for
from fl_client.webcam.source import Facts, Frame, Kind, Source, open_source

SCHEMES = ("rtsp", "rtsps")
PASSWORD = "EMOFL_RTSP_PASSWORD"
"""Environment variable with the password of an address that names a user only, so that no process list shows it."""

TIMEOUT_SECONDS = 5.0
"""How long opening, or the next picture, may take before the stream counts as lost."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
PATIENCE_SECONDS = 300.0
"""How long a lost stream is tried again before the loop ends."""

BLANK_SECONDS = 0.5
"""While there is no picture, how often a dark one takes its place, so that the window goes on hearing its keys."""


def is_stream(text: str) -> bool:
    """Whether `--source TEXT` is the address of a network camera."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    return found is not None and found[1].lower() in SCHEMES


@dataclass(frozen=True)
class Address:
    """An address and what may be said of it.

    Attributes:
        url: in full, with the password; shown to nobody.
        name: scheme, host and port; the rest may hold a password.
    """

    url: str
    name: str

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def parse_address(text: str, password: str | None = None) -> Address:
    """`rtsp://[user[:password]@]host[:port][/path][?query]`; `password` is used where it names a user without one.

    Raises:
        ConfigError: it is malformed. The sentence does not repeat it.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    behind = parts.path + parts.query + parts.fragment
    if not host or not text.isprintable() or " " in text or "@" in behind or "#" in text:
        raise ConfigError(
            "The stream's address is malformed; it looks like rtsp://camera.local:554/path, with special characters of a "
            "password percent-encoded."
        )
    place = f"[{host}]" if ":" in host else host
    place += "" if port is None else f":{port}"
    user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
    if user and not colon and password:
        parts = parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}")
    return Address(urlunsplit(parts), urlunsplit((parts.scheme.lower(), place, "", "", "")))


def open_capture(url: str) -> Capture:
    """OpenCV's FFmpeg on an address, with timeouts."""
    limit = int(1000 * TIMEOUT_SECONDS)
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(url, cv2.CAP_FFMPEG, options)  # type: ignore[return-value]


class StreamSource(ReadInThread):
    """A `Source` that is live like a camera. While the stream is away its frames are dark and say so.

    Raises:
        DeviceError: it cannot be opened, or gives no picture.
    """

    def __init__(
        self,
        address: Address,
        warn: Callable[[str], None],
        opener: Callable[[str], Capture] = open_capture,
        pause: float = FIRST_PAUSE_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__()
        self._address, self._warn, self._opener = address, warn, opener
        self._pause, self._patience = pause, patience
        opened = self._open()
        if opened is None:
            raise DeviceError(
                f"The stream {address.name} gives no picture within {TIMEOUT_SECONDS:g} seconds; check that it plays elsewhere, "
                f"and its user and password (a password can also be given in the variable {PASSWORD})."
            )
        self._capture, self._first = opened
        height, width = self._first.shape[:2]
        claimed = self._capture.get(cv2.CAP_PROP_FPS)
        fps = claimed if math.isfinite(claimed) and 0 < claimed <= 240 else 25.0
        self.facts = Facts(Kind.CAMERA, address.name, (width, height), fps)
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._pump, name="stream", daemon=True)

    def frames(self) -> Iterator[Frame]:
        """The newest frame each time one is asked for; a dark one while there is none.

        Raises:
            DeviceError: the stream stayed away.
        """
        started = time.monotonic()
        self._thread.start()
        yield Frame(0, self._first, 0.0, taken=started)
        index = 1
        while not self._stop.is_set():
            taken = self._slot.take(TIMEOUT_SECONDS if index == 1 else BLANK_SECONDS)
            if taken is not None:
                picture, at = taken
                yield Frame(index, picture, at - started, taken=at)
            elif self._gone.is_set():
                raise DeviceError(f"The stream {self._address.name} was lost and stayed away for {self._patience:g} seconds.")
            elif not self._stop.is_set():
                yield Frame(index, self._blank(), time.monotonic() - started)
            index += 1

    def _open(self) -> tuple[Capture, NDArray[np.uint8]] | None:
        capture = self._opener(self._address.url)
        ok, first = capture.read() if capture.isOpened() else (False, None)
        if ok and first is not None:
            return capture, np.asarray(first, dtype=np.uint8)
        capture.release()
        return None

    def _pump(self) -> None:
        while not self._stop.is_set():
            ok, picture = self._capture.read()
            if ok and picture is not None:
                self._slot.put((np.asarray(picture, dtype=np.uint8), time.monotonic()))
            elif not self._again():
                self._gone.set()
                self._slot.close()
                return

    def _again(self) -> bool:
        """Open the lost stream again; False when it stayed away, or the loop ends."""
        self._capture.release()
        if self._stop.is_set():
            return False
        self._warn(f"The stream {self._address.name} was lost; trying again.")
        lost, pause = time.monotonic(), self._pause
        while not self._stop.wait(pause):
            if (opened := self._open()) is not None:
                self._capture, first = opened
                self._slot.put((first, time.monotonic()))
                self._warn(f"The stream {self._address.name} is back.")
                return True
            if time.monotonic() - lost > self._patience:
                return False
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return False

    def _blank(self) -> NDArray[np.uint8]:
        width, height = self.facts.size
        canvas = np.full((height, width, 3), 30, dtype=np.uint8)
        text, size = paint.fitted(f"no picture from {self._address.name}, trying again", letters_for(canvas), width)
        paint.write(canvas, text, (width - paint.text_width(text, size)) // 2, height // 2, size, paint.WHITE)
        return canvas


def open_stream(text: str, warn: Callable[[str], None]) -> StreamSource:
    """The network camera at `--source TEXT`.

    Args:
        warn: called with one sentence when the stream is lost, and when it is back; from another thread.

    Raises:
        ConfigError: the address is malformed.
        DeviceError: it cannot be opened.
    """
    return StreamSource(parse_address(text, os.environ.get(PASSWORD)), warn)


def check_source(text: str) -> None:
    """Refuse an address that cannot be, before a model is opened.

    Raises:
        ConfigError: it is malformed.
    """
    if is_stream(text):
        parse_address(text)


def open_any(text: str, warn: Callable[[str], None]) -> Source:
    """The source that `--source TEXT` names: a network camera's address, or what `open_source` opens.

    Raises:
        ConfigError: an address is malformed.
        DeviceError: it cannot be opened, or holds no frame.
    """
    return open_stream(text, warn) if is_stream(text) else open_source(text, warn)
