"""A device's own pictures, `my_faces/<emotion>/*.png`, read into a `FaceSet`: what a client trains on.

The client and `fl-client data check` call it. Whatever is not used is named in the report, with the reason.
"""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.emotions import canonical_emotion
from common.errors import DataError
from models.faces.faceset import FaceSet, one_hot
from models.faces.picture import Unusable, digest, read_grey
from models.faces.report import FolderReport, LeftOut, Reason, faces_by_class, printable
from models.preprocess import Preprocessing

OWN_FOLDER = ".emofl"
"""Where a client keeps what belongs to the faces of a folder, its keys and its privacy ledger; no report names it."""

CONSENT, SESSION_FOLDER = "consent.json", ".capture"
"""What capture leaves beside the emotions' folders: who agreed to what, and where it stands; no report names them."""

_OURS = {OWN_FOLDER: True, SESSION_FOLDER: True, CONSENT: False}
"""Whether each of them is a folder."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Endings of picture files, in any case. The content decides which of these formats it is."""


@dataclass(frozen=True)
class _Picture:
    """A file that may be a face: where it is, its name in reports, and its class."""

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class Scan:
    """The usable faces of a folder, and where each came from.

    Attributes:
        faces: N of them.
        names: (N) path of each below the folder, printable.
        sizes: (N) width and height of each picture in pixels.
        report: how many there are, and what was left out.
    """

    faces: FaceSet
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    report: FolderReport


def read_folder(path: Path, preprocessing: Preprocessing, classes: tuple[str, ...]) -> tuple[FaceSet, FolderReport]:
    """The usable faces below `path` as (N, size, size) grey with one-hot labels, and what was left out.

    Raises:
        DataError: `path` is no readable folder, or holds no usable face; the message holds the report's sentence.
    """
    faces, report = scan_folder(path, preprocessing, classes)
    require_faces(report)
    return faces, report


def require_faces(report: FolderReport) -> None:
    """Refuse a folder in which nothing can be used.

    Raises:
        DataError: the report counts no usable face; the message holds its sentence.
    """
    if not report.usable:
        example = f"{report.folder}/{report.used[0][0]}/1.png"
        raise DataError(f"There is no face to use: put pictures into folders named by emotion, as {example}. {report.sentence}")


def scan_folder(path: Path, preprocessing: Preprocessing, classes: tuple[str, ...]) -> tuple[FaceSet, FolderReport]:
    """As `read_folder`, but a folder without a usable face is no error.

    Raises:
        DataError: `path` is no readable folder.
    """
    found = scan(path, preprocessing, classes)
    return found.faces, found.report


def scan(path: Path, preprocessing: Preprocessing, classes: tuple[str, ...]) -> Scan:
    """What is in a folder, picture by picture; no usable face is no error.

    - A folder directly below `path` is an emotion by its name or a synonym, in any case; two names of one emotion are
      read together. Only the pictures directly inside it are read: a folder inside it is named in the report.
    - A symbolic link is never followed, so that no file outside `path` is trained on; `path` itself may be one.
    - Hidden files and folders (a leading dot) are not read; what is our own directly below `path` (`OWN_FOLDER`, `CONSENT`,
      `SESSION_FOLDER`) is not named either.
    - Files with the same bytes count once, the first in sorted order, because differential privacy protects one record:
      a face that occurs twice would weigh twice. If they lie under different emotions, none of them is used.
    - EXIF rotation is applied, transparency is ignored, and of an animation the first picture is read.
    - Pictures are face crops already: each is widened to a square and resized by `preprocessing.whole`.

    The order of the faces is that of their paths, sorted by folder and file name.

    Raises:
        DataError: `path` is no readable folder.
    """
    left_out: list[LeftOut] = []
    pictures = _without_copies(_pictures(path, classes, left_out), left_out)
    images, labels, names, sizes = [], [], [], []
    for picture in pictures:
        try:
            grey = read_grey(picture.path)
            images.append(preprocessing.whole(grey))
            labels.append(picture.label)
            names.append(picture.name)
            sizes.append((grey.shape[1], grey.shape[0]))
        except Unusable as problem:
            left_out.append(LeftOut(picture.name, problem.reason, problem.detail))
    size = preprocessing.size
    stack = np.stack(images) if images else np.empty((0, size, size), dtype=np.uint8)
    faces = FaceSet(stack, one_hot(np.array(labels, dtype=np.int64), len(classes)), classes)
    left_out.sort(key=lambda thing: thing.path)
    report = FolderReport(printable(str(path)), faces_by_class(faces), tuple(left_out))
    return Scan(faces, tuple(names), tuple(sizes), report)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _pictures(path: Path, classes: tuple[str, ...], left_out: list[LeftOut]) -> list[_Picture]:
    """The files that may be faces, sorted; everything else below `path` goes to `left_out`."""
    if not path.is_dir():
        raise DataError(f"{path} is {'not a folder' if path.exists() else 'missing'}: give a folder with one folder per emotion.")
    try:
        top = _entries(path)
    except OSError as error:
        raise DataError(f"{path} cannot be opened ({error.strerror}).") from error
    pictures: list[_Picture] = []
    for entry in top:
        name = printable(entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        emotion = canonical_emotion(entry.name)
        if _OURS.get(entry.name) == is_folder and not entry.is_symlink():
            continue
        if reason := _not_followed(entry):
            left_out.append(_folder_left_out(entry, reason) if is_folder else LeftOut(name, reason))
        elif not is_folder:
            left_out.append(LeftOut(name, Reason.NO_EMOTION))
        elif emotion is None:
            left_out.append(_folder_left_out(entry, Reason.UNKNOWN_FOLDER))
        elif emotion not in classes:
            left_out.append(_folder_left_out(entry, Reason.UNUSED_EMOTION))
        else:
            pictures += _in_emotion(entry, classes.index(emotion), left_out)
    return pictures


def _in_emotion(folder: os.DirEntry[str], label: int, left_out: list[LeftOut]) -> list[_Picture]:
    try:
        entries = _entries(folder.path)
    except OSError as error:
        left_out.append(LeftOut(f"{printable(folder.name)}/", Reason.UNREADABLE, str(error.strerror)))
        return []
    pictures = []
    for entry in entries:
        name = f"{printable(folder.name)}/{printable(entry.name)}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if reason := _not_followed(entry) or (Reason.NESTED_FOLDER if is_folder else None):
            left_out.append(_folder_left_out(entry, reason, f"{name}/") if is_folder else LeftOut(name, reason))
        elif not entry.name.lower().endswith(SUFFIXES) or not entry.is_file(follow_symlinks=False):
            left_out.append(LeftOut(name, Reason.NOT_AN_IMAGE))
        else:
            pictures.append(_Picture(Path(entry.path), name, label))
    return pictures


def _not_followed(entry: os.DirEntry[str]) -> Reason | None:
    if entry.is_symlink():
        return Reason.LINK
    return Reason.HIDDEN if entry.name.startswith(".") else None


def _folder_left_out(folder: os.DirEntry[str], reason: Reason, name: str | None = None) -> LeftOut:
    files = sum(len(names) for _, _, names in os.walk(folder.path))
    return LeftOut(name or f"{printable(folder.name)}/", reason, f"{files:,} file" + ("" if files == 1 else "s"))


def _without_copies(pictures: list[_Picture], left_out: list[LeftOut]) -> list[_Picture]:
    """One picture for each content; none where equal contents carry different emotions."""
    by_content: dict[bytes, list[_Picture]] = defaultdict(list)
    for picture in pictures:
        try:
            by_content[digest(picture.path)].append(picture)
        except Unusable as problem:
            left_out.append(LeftOut(picture.name, problem.reason, problem.detail))
    unique = []
    for same in by_content.values():
        if len({picture.label for picture in same}) > 1:
            for picture in same:
                other = next(twin for twin in same if twin.label != picture.label)
                left_out.append(LeftOut(picture.name, Reason.CONTRADICTION, f"also {other.name}"))
        else:
            unique.append(same[0])
            left_out += [LeftOut(twin.name, Reason.COPY, f"same as {same[0].name}") for twin in same[1:]]
    return unique
