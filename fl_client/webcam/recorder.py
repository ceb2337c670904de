"""What the loop writes when asked: the annotated video or picture, and a table of what it saw.

Files are for their owner only (0600), written beside their final place and renamed into it when they are whole.
"""

import csv
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DeviceError, EmoflError
from fl_client.webcam.overlay import letterboxed
from fl_client.webcam.seen import Seen
from fl_client.webcam.source import Facts, Kind

PICTURES = (".jpeg", ".jpg", ".png")
LONGEST_GAP_SECONDS = 10.0
"""A camera's frame fills at most this much of the recorded time; a sleeping laptop must not fill the disk."""


class Recorder(Protocol):
    """Receives every processed frame."""

    path: Path

    def write(self, seen: Seen) -> None: ...

    def keep(self) -> bool:
        """Finish the file at its place. False when there was nothing to keep.

        Raises:
            DeviceError: it could not be written whole; nothing of it is left.
        """
        ...

    def discard(self) -> None:
        """Leave nothing."""
        ...


class VideoRecorder:
    """An .mp4 (codec mp4v) of the source's size and frame rate, without sound.

    Frames of another size are letterboxed. The codec has even sides only, so an odd side grows by one pixel. A
    camera's frames are repeated or left out so that the video runs as fast as the clock did.
    """

    def __init__(self, path: Path, facts: Facts) -> None:
        self.path = path
        self._facts = facts
        self._part = _part_of(path)
        width, height = facts.size
        even = (width + width % 2, height + height % 2)
        self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*"mp4v"), facts.fps, even)
        self._written = 0
        if not self._writer.isOpened():
            self.discard()
            raise DeviceError(f"This OpenCV cannot write a {width}x{height} .mp4 video to {path}.")

    def write(self, seen: Seen) -> None:
        picture = letterboxed(seen.canvas, self._facts.size)
        rows, columns = picture.shape[:2]
        if rows % 2 or columns % 2:
            picture = _with_even_sides(picture)
        for _ in range(self._copies(seen.frame.seconds)):
            self._writer.write(picture)
            self._written += 1

    def keep(self) -> bool:
        self._writer.release()
        if not self._written:
            self.discard()
            return False
        check = cv2.VideoCapture(str(self._part))
        frames = check.get(cv2.CAP_PROP_FRAME_COUNT) if check.isOpened() else 0
        check.release()
        if frames < self._written:
            self.discard()
            raise DeviceError(f"The video {self.path} could not be written whole; is there room on its disk?")
        os.replace(self._part, self.path)
        return True

    def discard(self) -> None:
        self._writer.release()
        self._part.unlink(missing_ok=True)

    def _copies(self, seconds: float) -> int:
        if not self._facts.kind.live:
            return 1
        due = int(seconds * self._facts.fps) + 1 - self._written
        return max(0, min(due, int(LONGEST_GAP_SECONDS * self._facts.fps)))


class PictureRecorder:
    """A .png or .jpg of the one frame of a picture source."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = _part_of(path)
        self._content = b""

    def write(self, seen: Seen) -> None:
        ok, encoded = cv2.imencode(self.path.suffix.lower(), seen.canvas)
        if not ok:
            raise DeviceError(f"This OpenCV cannot encode the picture {self.path}.")
        self._content = encoded.tobytes()

    def keep(self) -> bool:
        if not self._content:
            self.discard()
            return False
        try:
            self._part.write_bytes(self._content)
        except OSError as error:
            self.discard()
            raise DeviceError(f"The picture {self.path} could not be written: {error.strerror}.") from error
        os.replace(self._part, self.path)
        return True

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)


class TableRecorder:
    """A .csv with one line per face: frame, seconds, name, model, box, label, confidence, and each class's probability.

    `frame` counts from 0, `seconds` from the source's start, the box is in pixels of the unmirrored frame.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path = path
        self._classes = tuple(classes)
        self._part = _part_of(path)
        self._file = self._part.open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._file, lineterminator="\n")
        columns = ("frame", "seconds", "name", "model", "x", "y", "width", "height", "label", "confidence")
        self._table.writerow((*columns, *(f"p_{name}" for name in self._classes)))

    def write(self, seen: Seen) -> None:
        frame = seen.frame
        try:
            for face in seen.faces:
                probabilities = dict(face.probabilities)
                row = (frame.index, f"{frame.seconds:.3f}", frame.name, seen.version, *face.box, face.label)
                shares = (f"{probabilities[name]:.6f}" for name in self._classes)
                self._table.writerow((*row, f"{face.confidence:.6f}", *shares))
        except OSError as error:
            raise DeviceError(f"The table {self.path} could not be written: {error.strerror}.") from error

    def keep(self) -> bool:
        try:
            self._file.close()
        except OSError as error:
            self.discard()
            raise DeviceError(f"The table {self.path} could not be written: {error.strerror}.") from error
        os.replace(self._part, self.path)
        return True

    def discard(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass
        finally:
            self._part.unlink(missing_ok=True)


class Outputs:
    """The recorders of one run, as a context: what they wrote is kept when it ends well, else removed.

    Ctrl-C keeps what was written so far, and so does an error of a live camera: the time it recorded cannot be had
    again.
    """

    def __init__(self, recorders: Sequence[Recorder], live: bool) -> None:
        self._recorders = tuple(recorders)
        self._live = live
        self.kept: list[Path] = []

    def __enter__(self) -> "Outputs":
        return self

    def write(self, seen: Seen) -> None:
        """Give the frame to every recorder."""
        for recorder in self._recorders:
            recorder.write(seen)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        keep = error is None or isinstance(error, KeyboardInterrupt) or (self._live and isinstance(error, EmoflError))
        failures: list[DeviceError] = []
        for recorder in self._recorders:
            if not keep:
                recorder.discard()
                continue
            try:
                if recorder.keep():
                    self.kept.append(recorder.path)
            except DeviceError as failure:
                failures.append(failure)
        if failures and not isinstance(error, EmoflError):
            raise failures[0]


def check_outputs(output: Path | None, table: Path | None) -> None:
    """Refuse outputs that cannot be, before a camera is opened.

    Raises:
        ConfigError: an ending is unknown, or both are one file.
    """
    if output is not None and output.suffix.lower() not in (".mp4", *PICTURES):
        raise ConfigError(f"--output {output} must end in .mp4, or for a picture in .png or .jpg.")
    if table is not None and table.suffix.lower() != ".csv":
        raise ConfigError(f"--csv {table} must end in .csv.")


def open_recorders(output: Path | None, table: Path | None, facts: Facts, classes: Sequence[str]) -> list[Recorder]:
    """The recorders that `--output` and `--csv` ask for; their part files exist from here on.

    Raises:
        ConfigError: a picture is asked for from a source of many frames, or an output is what is being read.
        DeviceError: a file cannot be created.
    """
    check_outputs(output, table)
    for path in (output, table):
        if path is not None and path.exists() and any(path.samefile(file) for file in facts.files if file.exists()):
            raise ConfigError(f"{path} is what is being read; choose another name for the output.")
    picture = output is not None and output.suffix.lower() in PICTURES
    if picture and facts.kind is not Kind.IMAGE:
        raise ConfigError(f"--output {output} is a picture, and a {facts.kind.value} has many frames: use .mp4.")
    recorders: list[Recorder] = []
    try:
        if output is not None:
            recorders.append(PictureRecorder(output) if picture else VideoRecorder(output, facts))
        if table is not None:
            recorders.append(TableRecorder(table, classes))
    except EmoflError:
        for recorder in recorders:
            recorder.discard()
        raise
    return recorders


def _part_of(path: Path) -> Path:
    """A new, empty file (0600) beside `path` with the same ending."""
    if path.is_dir():
        raise DeviceError(f"The output {path} is a folder; give the name of a file.")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise DeviceError(f"The output {path} cannot be created: {error.strerror}.") from error
    os.close(handle)
    return Path(name)


def _with_even_sides(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = picture.shape[:2]
    return np.pad(picture, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
