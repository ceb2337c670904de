"""Where frames come from: a camera, a video file, one picture or a folder of pictures.

`fl-client webcam` opens one with `open_source` and reads it frame by frame; pictures never leave this process.
"""

import math
import os
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DeviceError
from fl_client.webcam.camera import CameraReader
from fl_client.webcam.native_files import read_picture, utf8_name
from models.faces.report import printable

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8, blue-green-red, as OpenCV holds it."""

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
STILLS_PER_SECOND = 1.0
LONGEST_INDEX = 9
"""Digits of a camera's index: OpenCV takes a 32-bit number."""


class Kind(Enum):
    """What a source is; only a camera is live, and only pictures are stills."""

    CAMERA = "camera"
    VIDEO = "video"
    IMAGE = "image"
    FOLDER = "folder"

    @property
    def live(self) -> bool:
        """Frames that are not read in time are lost, and there is no last one."""
        return self is Kind.CAMERA

    @property
    def stills(self) -> bool:
        """Frames that stand alone: each waits for the person to go on."""
        return self in (Kind.IMAGE, Kind.FOLDER)


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        index: 0, 1, ... as processed; frames that a live camera dropped are not counted.
        picture: (H, W, 3) uint8 blue-green-red.
        seconds: since the source's start (a camera's by the clock, a file's by its frame rate).
        name: the file it came from, printable; empty for a camera.
        taken: when a camera gave it, by `time.monotonic`; None for files.
    """

    index: int
    picture: Picture
    seconds: float
    name: str = ""
    taken: float | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a source before its first frame.

    Attributes:
        name: for messages, as in "camera 0" or "holiday.mp4"; printable.
        size: (width, height) of the first frame in pixels.
        fps: frames per second by its own word, in (0, 240].
        total: number of frames where it is known; a video's header may be wrong about it.
        files: what is read, so that an output never overwrites its own source.
    """

    kind: Kind
    name: str
    size: tuple[int, int]
    fps: float
    total: int | None = None
    files: tuple[Path, ...] = ()


class Source(Protocol):
    """Gives frames one after the other, once."""

    @property
    def facts(self) -> Facts: ...

    def frames(self) -> Iterator[Frame]:
        """Every frame of a file; of a live camera, whichever is newest when the next one is asked for."""
        ...

    @property
    def dropped(self) -> int:
        """Frames of a live camera that were stale before they could be processed."""
        ...

    def close(self) -> None: ...


class CameraSource:
    """A camera by its index, read in a thread of its own so that a slow loop sees the newest frame."""

    def __init__(self, index: int) -> None:
        self._reader = CameraReader(index)
        height, width = self._reader.first.shape[:2]
        fps = _frame_rate(self._reader.fps, default=30.0)
        self.facts = Facts(Kind.CAMERA, f"camera {index}", (width, height), fps)

    @property
    def dropped(self) -> int:
        return self._reader.dropped

    def frames(self) -> Iterator[Frame]:
        for index, (picture, seconds) in enumerate(self._reader.newest()):
            yield Frame(index, picture, seconds, taken=self._reader.started + seconds)

    def close(self) -> None:
        self._reader.close()


class VideoSource:
    """Every frame of a video file, in order."""

    dropped = 0

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._capture = cv2.VideoCapture(utf8_name(path))
        self._warn = warn
        opened = self._capture.isOpened()
        ok, first = self._capture.read() if opened else (False, None)
        if not ok or first is None:
            self._capture.release()
            what = "has no frame that can be read" if opened else "is not a video or picture that OpenCV can read"
            raise DeviceError(f"The file {printable(str(path))} {what}; try another file, or convert it to .mp4.")
        self._first: Picture = np.asarray(first, dtype=np.uint8)
        height, width = self._first.shape[:2]
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.facts = Facts(
            kind=Kind.VIDEO,
            name=printable(path.name),
            size=(width, height),
            fps=_frame_rate(self._capture.get(cv2.CAP_PROP_FPS), default=25.0),
            total=count if 0 < count < 100_000_000 else None,
            files=(path,),
        )

    def frames(self) -> Iterator[Frame]:
        index, picture = 0, self._first
        while True:
            yield Frame(index, picture, index / self.facts.fps, self.facts.name)
            index += 1
            ok, following = self._capture.read()
            if not ok or following is None:
                break
            picture = np.asarray(following, dtype=np.uint8)
        if self.facts.total is not None and index < 0.9 * self.facts.total:
            self._warn(f"{self.facts.name} ended after {index} of {self.facts.total} frames: it may be damaged.")

    def close(self) -> None:
        self._capture.release()


class StillSource:
    """One picture, or the pictures of a folder in the natural order of their names (2.png before 10.png)."""

    dropped = 0

    def __init__(self, files: list[Path], name: str, kind: Kind, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._files = files
        self._pictures = self._read(files)
        first = next(self._pictures, None)
        if first is None:
            what = "is not a picture that OpenCV can read" if kind is Kind.IMAGE else "holds no picture that can be read"
            raise DeviceError(f"{name} {what}; use .jpg or .png files.")
        self._first = first
        height, width = first[1].shape[:2]
        self.facts = Facts(kind, name, (width, height), STILLS_PER_SECOND, len(files), tuple(files))

    def frames(self) -> Iterator[Frame]:
        path, picture = self._first
        yield Frame(0, picture, 0.0, printable(path.name))
        for index, (path, picture) in enumerate(self._pictures, start=1):
            yield Frame(index, picture, index / self.facts.fps, printable(path.name))

    def close(self) -> None:
        self._pictures.close()

    def _read(self, files: list[Path]) -> Generator[tuple[Path, Picture], None, None]:
        for path in files:
            picture = read_picture(path)
            if picture is not None:
                yield path, picture
            elif len(files) > 1:
                self._warn(f"{printable(path.name)} cannot be read as a picture and is left out.")


def open_source(text: str, warn: Callable[[str], None]) -> Source:
    """The source that `--source TEXT` names: a camera's index, or the path of a video, a picture or a folder.

    Args:
        warn: called with one sentence for each file that is left out.

    Raises:
        ConfigError: it is no camera's index, for it is too large.
        DeviceError: it cannot be opened, or holds no frame.
    """
    if text.isdecimal():
        return _camera(text)
    if device := re.fullmatch(r"/dev/video(\d+)", text):
        return _camera(device[1])
    if address := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        raise DeviceError(
            f"Network streams ({address[1].lower()}://) cannot be used; "
            "--source takes a camera's index, an rtsp:// address, a video, a picture or a folder of pictures."
        )
    path = Path(text).expanduser()
    shown = printable(str(path))
    if path.is_dir():
        files = sorted(
            (file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()),
            key=_natural,
        )
        if not files:
            raise DeviceError(f"The folder {shown} holds no pictures ({', '.join(PICTURE_SUFFIXES)}).")
        return StillSource(files, shown, Kind.FOLDER, warn)
    if not path.is_file():
        what = "is not a file or folder" if path.exists() else "does not exist"
        raise DeviceError(f"The source {shown} {what}; --source takes a camera's index (as in 0), a file or a folder.")
    if not os.access(path, os.R_OK):
        raise DeviceError(f"The source {shown} cannot be read: its permissions forbid it.")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return StillSource([path], shown, Kind.IMAGE, warn)
    return VideoSource(path, warn)


def _camera(index: str) -> CameraSource:
    if len(index) > LONGEST_INDEX:
        raise ConfigError(
            f"A camera's index has at most {LONGEST_INDEX} digits: --source takes one (as in 0), a video, a picture or a folder."
        )
    return CameraSource(int(index))


def _frame_rate(claimed: float, default: float) -> float:
    return float(claimed) if math.isfinite(claimed) and 0 < claimed <= 240 else default


def _natural(path: Path) -> tuple[tuple[int, int | str], ...]:
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)
