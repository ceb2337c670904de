"""A device's own pictures, `my_faces/<emotion>/*.png`, read into a `FaceSet`: what a client trains on.

The client and `fl-client data check` call it. Whatever is not used is named in the report, with the reason.
"""

import hashlib
import io
import os
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.emotions import canonical_emotion
from common.errors import DataError
from models.faces.faceset import FaceSet, one_hot
from models.faces.report import FolderReport, LeftOut, Reason, faces_by_class, printable
from models.preprocess import Preprocessing

OWN_FOLDER = ".emofl"
"""Where a client keeps what belongs to the faces of a folder, its keys and its privacy ledger; no report names it."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Endings of picture files, in any case. The content decides which of these formats it is."""

SHORTEST_SIDE = 16
"""Pixels; a smaller picture holds no readable face."""

LONGEST_SIDE = 8192
"""Pixels; bounds a picture, and the square it is widened to, to 64 megapixels. Checked in the header, before decoding."""

MOST_BYTES = 256 * 2**20
"""Of one file: what an uncompressed picture of the largest size takes."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_BAND = 512
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class _Picture:
    """A file that may be a face: where it is, its name in reports, and its class."""

    path: Path
    name: str
    label: int


class _Unusable(Exception):
    """One picture cannot be used; the reader turns it into a line of the report."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


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

    - A folder directly below `path` is an emotion by its name or a synonym, in any case; two names of one emotion are
      read together. Only the pictures directly inside it are read: a folder inside it is named in the report.
    - A symbolic link is never followed, so that no file outside `path` is trained on; `path` itself may be one.
    - Hidden files and folders (a leading dot) are not read; a folder `OWN_FOLDER` directly below `path` is not named either.
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
    images, labels = [], []
    for picture in pictures:
        try:
            images.append(_face(picture.path, preprocessing))
            labels.append(picture.label)
        except _Unusable as problem:
            left_out.append(LeftOut(picture.name, problem.reason, problem.detail))
    size = preprocessing.size
    stack = np.stack(images) if images else np.empty((0, size, size), dtype=np.uint8)
    faces = FaceSet(stack, one_hot(np.array(labels, dtype=np.int64), len(classes)), classes)
    left_out.sort(key=lambda thing: thing.path)
    return faces, FolderReport(printable(str(path)), faces_by_class(faces), tuple(left_out))


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
        if is_folder and entry.name == OWN_FOLDER:
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
            by_content[_digest(picture.path)].append(picture)
        except _Unusable as problem:
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


def _digest(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size == 0:
            raise _Unusable(Reason.EMPTY)
        if size > MOST_BYTES:
            raise _Unusable(Reason.TOO_LARGE, f"{size / 2**20:,.0f} MiB")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _Unusable(Reason.UNREADABLE, str(error.strerror)) from error


def _face(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The picture in `path` as (size, size) grey."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _Unusable(Reason.UNREADABLE, str(error.strerror)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                _check_size(*image.size)
                grey = _upright(_grey(image, preprocessing), _orientation(image))
    except _Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _Unusable(Reason.TOO_LARGE, f"a side has more than {LONGEST_SIDE:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise _Unusable(Reason.BROKEN) from error
    if grey.min() == grey.max():
        raise _Unusable(Reason.BLANK)
    return preprocessing.whole(grey)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < SHORTEST_SIDE:
        raise _Unusable(Reason.TOO_SMALL, f"{width}x{height}, at least {SHORTEST_SIDE}x{SHORTEST_SIDE} is needed")
    if max(width, height) > LONGEST_SIDE:
        raise _Unusable(Reason.TOO_LARGE, f"{width}x{height}, a side has more than {LONGEST_SIDE:,} pixels")


def _grey(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Any picture as (height, width) uint8 by the model's own rule, a band of rows at a time to spare memory."""
    image.load()
    width, height = image.size
    bands = []
    for top in range(0, height, _BAND):
        band = image.crop((0, top, width, min(top + _BAND, height)))
        if band.mode.startswith("I"):
            bands.append((np.asarray(band) >> 8).astype(np.uint8))
        elif band.mode in ("1", "L", "LA"):
            bands.append(np.asarray(band.convert("L"), dtype=np.uint8))
        else:
            bands.append(preprocessing.grey(np.asarray(band.convert("RGB"), dtype=np.uint8)[:, :, ::-1]))
    return np.concatenate(bands)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where it is absent or damaged."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF in a picture that is otherwise whole
        return 1


def _upright(grey: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF's orientation (CIPA DC-008, tag 274)."""
    if orientation in (5, 6, 7, 8):
        grey = grey.T
    if orientation in (2, 3, 6, 7):
        grey = grey[:, ::-1]
    if orientation in (3, 4, 7, 8):
        grey = grey[::-1]
    return np.ascontiguousarray(grey)
