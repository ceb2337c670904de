"""What the loop writes when asked: the annotated video or picture, and tables of what it saw.

Files are for their owner only (0600), written beside their final place and renamed into it when they are whole.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DeviceError, EmoflError
from fl_client.webcam.native_files import utf8_name
from fl_client.webcam.overlay import letterboxed
from fl_client.webcam.parts import part_of, unused
from fl_client.webcam.seen import Seen
from fl_client.webcam.source import Facts, Kind
from fl_client.webcam.tables import CsvTable, ParquetTable, check_parquet

OPENED_BY_NAME, PICTURES = (".mp4", ".parquet"), (".jpeg", ".jpg", ".png")
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
        self._part = part_of(path)
        width, height = facts.size
        even = (width + width % 2, height + height % 2)
        self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*"mp4v"), facts.fps, even)
        self._written = 0
        self._began: float | None = None
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
        if self._began is None:
            self._began = seconds
        due = int((seconds - self._began) * self._facts.fps) + 1 - self._written
        return max(0, min(due, int(LONGEST_GAP_SECONDS * self._facts.fps)))


class PictureRecorder:
    """A .png or .jpg of the one frame of a picture source."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = part_of(path)
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


class Outputs:
    """What one run writes, as a context: what is begun is kept when the run ends well, else removed.

    Ctrl-C keeps what was written so far, and so does an error of a live camera: the time it recorded cannot be had
    again. Beside what is written throughout, the person may begin and end recordings as the loop runs.

    Attributes:
        kept: the files that are whole.
    """

    def __init__(self, recorders: Sequence[Recorder], live: bool, begin: Callable[[], Sequence[Recorder]] = lambda: ()) -> None:
        """Args:
        recorders: of the whole run.
        begin: opens the recorders of a recording that the person begins.
        """
        self._recorders = tuple(recorders)
        self._begin = begin
        self._recording: tuple[Recorder, ...] = ()
        self._live = live
        self.kept: list[Path] = []

    def __enter__(self) -> "Outputs":
        return self

    @property
    def recording(self) -> bool:
        """Whether the person began a recording that goes on."""
        return bool(self._recording)

    @property
    def writing(self) -> bool:
        """Whether anything of what is seen goes to the disk."""
        return bool(self._recorders or self._recording)

    def write(self, seen: Seen) -> None:
        """Give the frame to every recorder."""
        for recorder in (*self._recorders, *self._recording):
            recorder.write(seen)

    def start(self) -> None:
        """Begin a recording, unless one goes on.

        Raises:
            DeviceError: its files cannot be made.
        """
        if not self._recording:
            self._recording = tuple(self._begin())

    def stop(self) -> list[Path]:
        """End the recording that goes on; its files.

        Raises:
            DeviceError: a file could not be written whole; the others are kept.
        """
        recording, self._recording = self._recording, ()
        before = len(self.kept)
        if failures := self._keep(recording):
            raise failures[0]
        return self.kept[before:]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        keep = error is None or isinstance(error, KeyboardInterrupt) or (self._live and isinstance(error, EmoflError))
        recorders = (*self._recorders, *self._recording)
        if not keep:
            for recorder in recorders:
                recorder.discard()
            return
        failures = self._keep(recorders)
        if failures and not isinstance(error, EmoflError):
            raise failures[0]

    def _keep(self, recorders: Sequence[Recorder]) -> list[DeviceError]:
        failures = []
        for recorder in recorders:
            try:
                if recorder.keep():
                    self.kept.append(recorder.path)
            except DeviceError as failure:
                failures.append(failure)
        return failures


@dataclass(frozen=True)
class Files:
    """The files that a run writes throughout, as its options name them.

    Attributes:
        output: .mp4, or .png or .jpg of one picture.
        csv, parquet: tables of what was seen.
    """

    output: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        """Those that are asked for."""
        return (path for path in (self.output, self.csv, self.parquet) if path is not None)

    def check(self) -> None:
        """Refuse what cannot be, before a camera is opened.

        Raises:
            ConfigError: an ending is unknown.
            DeviceError: a name is not valid UTF-8, and cannot be written for that.
            DependencyError: a .parquet table is asked for and pyarrow is not installed.
        """
        if self.output is not None and self.output.suffix.lower() not in (".mp4", *PICTURES):
            raise ConfigError(f"--output {self.output} must end in .mp4, or for a picture in .png or .jpg.")
        for option, path in (("csv", self.csv), ("parquet", self.parquet)):
            if path is not None and path.suffix.lower() != f".{option}":
                raise ConfigError(f"--{option} {path} must end in .{option}.")
        for path in self:
            if path.suffix.lower() in OPENED_BY_NAME:
                utf8_name(path.absolute())
        if self.parquet is not None:
            check_parquet()


def open_recorders(files: Files, facts: Facts, classes: Sequence[str]) -> list[Recorder]:
    """The recorders of `files`; their part files exist from here on.

    Raises:
        ConfigError: a picture is asked for from a source of many frames, or an output is what is being read.
        DeviceError: a file cannot be created.
    """
    files.check()
    for path in files:
        if path.exists() and any(path.samefile(file) for file in facts.files if file.exists()):
            raise ConfigError(f"{path} is what is being read; choose another name for the output.")
    output = files.output
    picture = output is not None and output.suffix.lower() in PICTURES
    if picture and facts.kind is not Kind.IMAGE:
        raise ConfigError(f"--output {output} is a picture, and a {facts.kind.value} has many frames: use .mp4.")
    recorders: list[Recorder] = []
    try:
        if output is not None:
            recorders.append(PictureRecorder(output) if picture else VideoRecorder(output, facts))
        if files.csv is not None:
            recorders.append(CsvTable(files.csv, classes))
        if files.parquet is not None:
            recorders.append(ParquetTable(files.parquet, classes))
    except EmoflError:
        for recorder in recorders:
            recorder.discard()
        raise
    return recorders


def open_recording(folder: Path, facts: Facts, classes: Sequence[str]) -> list[Recorder]:
    """A new .mp4 and .csv in `folder`, named after the time, for a recording that the person begins.

    Raises:
        DeviceError: they cannot be made there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DeviceError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    path = unused(folder, f"emofl-{time.strftime('%Y%m%d-%H%M%S')}", (".mp4", ".csv"))
    return open_recorders(Files(path.with_suffix(".mp4"), path.with_suffix(".csv")), facts, classes)


def _with_even_sides(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = picture.shape[:2]
    return np.pad(picture, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
