"""Existing photos and films become faces to decide on, one file after the other. `fl-client capture --import` runs it.

Nothing is stored here: `ImportForm` asks the owner, or a rule decides, and the album stores. The originals stay as they are.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError, DeviceError, EmoflError
from fl_client.capture.album import Album
from fl_client.capture.face import SECOND_FACE, Cut, Fault, cut_out, fault_of
from fl_client.capture.labels import Label, Origin, folder_label
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.source import VideoSource
from models.detector.detection import Detection
from models.detector.detectors import Detector
from models.faces.folder import SUFFIXES
from models.faces.picture import Unusable, read_colour
from models.faces.quality import ALIKE, bits_apart, fingerprint
from models.faces.report import printable

UNREAD_SUFFIXES = (".avif", ".gif", ".heic", ".heif", ".tif", ".tiff")
"""Of pictures that a person would expect to be read."""

SAID_EVERY = 50
"""Files between two words on how far it is."""

VIDEO_SUFFIXES = (".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpg", ".webm")


@dataclass(frozen=True)
class Found:
    """A face in somebody's photo or film.

    Attributes:
        name: the file, as a person reads it, with the second of a film.
        cut: the face.
        label: what is proposed, or None.
        alone: no other face of like size is in the picture.
    """

    name: str
    cut: Cut
    label: Label | None
    alone: bool


@dataclass
class Search:
    """Looks for faces in files.

    Attributes:
        make_classifier: makes what proposes labels where no folder names one, at the first face that needs it, because a model
            takes seconds to load and may not be there; None proposes none.
        every: seconds of a film between two frames that are looked at.
        say: receives one sentence for each file that cannot be used.
        empty: files in which no face was found.
        repeated: faces of films that were nearly the same as one remembered.
    """

    detector: Detector
    album: Album
    margin: float = 0.0
    make_classifier: Callable[[], Classifier] | None = None
    label: str | None = None
    every: float = 1.0
    say: Callable[[str], None] = lambda sentence: None
    files: int = 0
    empty: int = 0
    repeated: int = 0
    _seen: list[NDArray[np.uint8]] = field(default_factory=list)
    _found: int = 0
    _classifier: Classifier | None = None

    def faces(self, path: Path) -> Iterator[Found]:
        """Every face in a photo, a film, or the photos and films below a folder.

        Raises:
            DataError: there is nothing of that name, or no photo or film in it.
        """
        files = media_below(path)
        self._name_the_unread(path)
        for file in files:
            if self.files and self.files % SAID_EVERY == 0:
                self.say(f"{self.files:,} of {len(files):,} files looked at.")
            self.files += 1
            before = self._found
            yield from self._film(file, path) if _is_film(file) else self._photo(file, path)
            self.empty += self._found == before

    def _name_the_unread(self, path: Path) -> None:
        unread = [file for file in _files_below(path) if file.name.lower().endswith(UNREAD_SUFFIXES)] if path.is_dir() else []
        if unread:
            others = f" and {len(unread) - 1:,} more" if len(unread) > 1 else ""
            self.say(f"{printable(unread[0].name)}{others} cannot be read here: convert to JPEG first.")

    def fault(self, found: Found, emotion: str | None) -> Fault | None:
        """Why a face would not be stored under `emotion` now."""
        return fault_of(found.cut, *self.album.nearest(emotion, found.cut.square)) if emotion else found.cut.flaw

    def remember(self, found: Found) -> None:
        """The face is offered or stored: those of films that are nearly the same are passed over from now on."""
        self._seen.append(fingerprint(found.cut.square))

    def forget(self, found: Found) -> None:
        """The owner left the face out: one like it is found again."""
        print_ = fingerprint(found.cut.square)
        self._seen = [seen for seen in self._seen if not np.array_equal(seen, print_)]

    def in_picture(self, picture: NDArray[np.uint8], name: str, label: Label | None, film: bool) -> Iterator[Found]:
        """Every face in a (H, W, 3) uint8 picture.

        Args:
            name: for people.
            label: of its folder; None asks the classifier.
            film: faces that are nearly the same as one remembered are passed over, and counted in `repeated`.
        """
        detections = self.detector.detect(picture)
        if self.label is not None:
            label = Label(self.label, Origin.OWNER)
        proposals = [label] * len(detections) if label else self._proposed(picture, detections)
        largest = max((detection.box[2] for detection in detections), default=0)
        company = sum(detection.box[2] > SECOND_FACE * largest for detection in detections) > 1
        for number, (detection, proposal) in enumerate(zip(detections, proposals, strict=True), start=1):
            self._found += 1
            cut = cut_out(picture, detection, self.margin)
            if film and self._seen and bits_apart(np.stack(self._seen), fingerprint(cut.square)).min() <= ALIKE:
                self.repeated += 1
                continue
            which = f", face {number}" if len(detections) > 1 else ""
            yield Found(name + which, cut, proposal, not company)

    def _photo(self, file: Path, root: Path) -> Iterator[Found]:
        try:
            picture = read_colour(file)
        except Unusable as problem:
            detail = f" ({problem.detail})" if problem.detail else ""
            self.say(f"{printable(file.name)} is left out: {problem.reason}{detail}.")
            return
        yield from self.in_picture(picture, _shown(file, root), folder_label(file, root), film=False)

    def _film(self, file: Path, root: Path) -> Iterator[Found]:
        try:
            film = VideoSource(file, self.say)
        except DeviceError as error:
            self.say(f"{printable(file.name)} is left out: {error}")
            return
        due = 0.0
        try:
            for frame in film.frames():
                if frame.seconds >= due:
                    due = frame.seconds + self.every
                    name = f"{_shown(file, root)} at {frame.seconds:.1f} s"
                    yield from self.in_picture(frame.picture, name, folder_label(file, root), film=True)
        finally:
            film.close()

    def _proposed(self, picture: NDArray[np.uint8], detections: list[Detection]) -> list[Label | None]:
        classifier = self._ready() if detections else None
        if classifier is None:
            return [None] * len(detections)
        rows = classifier.probabilities(picture, [detection.box for detection in detections])
        classes = classifier.model.classes
        return [Label(classes[int(row.argmax())], Origin.MODEL, float(row.max())) for row in rows]

    def _ready(self) -> Classifier | None:
        make, self.make_classifier = self.make_classifier, None
        if make is not None:
            try:
                self._classifier = make()
            except EmoflError as error:
                self.say(f"No labels are proposed: {error}")
        return self._classifier


@dataclass
class Tally:
    """What an import did."""

    taken: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    def sentence(self, search: Search) -> str:
        """All of it for the person."""
        taken = ", ".join(f"{name} {count}" for name, count in self.taken.items())
        parts = [
            f"{search.files:,} file{'s' * (search.files != 1)}",
            f"{self.taken.total():,} stored" + (f" ({taken})" if taken else ""),
        ]
        if self.left:
            parts.append("left out: " + ", ".join(f"{why} {count:,}" for why, count in sorted(self.left.items())))
        if search.repeated:
            parts.append(f"{search.repeated:,} face{'s' * (search.repeated != 1)} of films nearly the same as one before")
        if search.empty:
            parts.append(f"{search.empty:,} file{'s' * (search.empty != 1)} without a face")
        return "; ".join(parts) + ". The originals are untouched."


def media_below(path: Path) -> list[Path]:
    """The photo or film `path`, or those below it in the order of their paths. Hidden ones and links are passed over.

    Raises:
        DataError: there is none.
    """
    kinds = (*SUFFIXES, *VIDEO_SUFFIXES)
    if path.is_file():
        if not path.name.lower().endswith(kinds):
            raise DataError(
                f"{path} is neither a photo nor a film: {', '.join(kinds)} are read. Convert it first (HEIC to JPEG, for one)."
            )
        return [path]
    if not path.is_dir():
        raise DataError(f"There is no {path}: --import takes a photo, a film, or a folder of them.")
    found = [file for file in _files_below(path) if file.name.lower().endswith(kinds)]
    if not found:
        raise DataError(f"{path} holds no photo and no film: {', '.join(kinds)} are read (HEIC: convert it to JPEG first).")
    return found


def _files_below(path: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in sorted(files) if not name.startswith(".")]
    return [file for file in found if not file.is_symlink()]


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _shown(file: Path, root: Path) -> str:
    return printable(str(file.relative_to(root)) if root.is_dir() else file.name)
