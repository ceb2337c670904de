"""Kaggle's fer2013.csv, read into a `FaceSet` of seven emotions: for simulation, training and public evaluation.

The file belongs to Kaggle's "Challenges in Representation Learning: Facial Expression Recognition Challenge" (Goodfellow
et al. 2013, arXiv:1307.0414): one header, then 28,709 Training, 3,589 PublicTest and 3,589 PrivateTest rows. It needs an
account there; the project never downloads it.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_7
from common.errors import ConfigError, DataError
from models.faces.faceset import FaceSet, one_hot
from models.faces.report import RowReport, printable

Usage = Literal["Training", "PublicTest", "PrivateTest"]
"""The competition's splits: train on the first, choose on the second, report on the third."""

SIDE = 48
"""Width and height of every face of the file, in pixels."""

WHERE = (
    "fer2013.csv comes from Kaggle's 'Challenges in Representation Learning: Facial Expression Recognition Challenge' "
    "(kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge)"
)

_LONGEST_LINE = 64 * 1024
_LABELS = {str(i).encode(): i for i in range(len(EMOTIONS_7))}
_COLUMNS = {b"emotion", b"pixels", b"usage"}


@dataclass(frozen=True)
class Rows:
    """Rows of fer2013.csv as they stand in the file, black ones included.

    Attributes:
        images: (N, 48, 48) uint8, of the asked-for usage only.
        labels: (N,) int64, index into EMOTIONS_7.
        at: (N,) int64, row of each in the whole file; the row below the header is 0.
        usages: the usage of every row of the file, asked for or not.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    at: NDArray[np.int64]
    usages: tuple[str, ...]

    @property
    def black(self) -> NDArray[np.bool_]:
        """(N,) True where every pixel is 0: no face."""
        return np.asarray(~self.images.any(axis=(1, 2)), dtype=np.bool_)


def load_fer2013(path: Path, usage: Usage | None = None) -> FaceSet:
    """The faces of `read_fer2013`, for callers that show no report."""
    return read_fer2013(path, usage)[0]


def read_fer2013(path: Path, usage: Usage | None = None) -> tuple[FaceSet, RowReport]:
    """The faces of one usage (None: all) in the file's order, classes EMOTIONS_7, one-hot labels.

    Rows that are all black are not faces; they are left out and counted in the report.

    Raises:
        DataError: the file is missing, has another header, a malformed row (the line is named), or no face of `usage`.
    """
    rows = read_rows(path, usage)
    kept = np.flatnonzero(~rows.black)
    report = RowReport(f"{printable(path.name)} ({usage or 'all splits'})", len(rows.labels), ())
    report = report.without("all black", len(rows.labels) - len(kept))
    if not len(kept):
        raise DataError(f"{path} holds no usable face: {report.sentence}")
    return FaceSet(rows.images[kept], one_hot(rows.labels[kept], len(EMOTIONS_7)), EMOTIONS_7), report


def read_rows(path: Path, usage: Usage | None = None) -> Rows:
    """The rows of one usage (None: all). Every row's label and usage are checked, and the pixels of those returned.

    Raises:
        DataError: as in `read_fer2013`.
        ConfigError: unknown `usage`.
    """
    require_usage(usage)
    if not path.exists():
        raise DataError(f"There is no file {path}; {WHERE}.")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            return _parse(file, path, usage)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def require_usage(usage: str | None) -> None:
    """Refuse what is neither a usage nor None.

    Raises:
        ConfigError: naming the three.
    """
    if usage is not None and usage not in get_args(Usage):
        raise ConfigError(f"Unknown usage {usage!r}: choose {', '.join(get_args(Usage))}.")


def _parse(file: BinaryIO, path: Path, usage: Usage | None) -> Rows:
    columns = [name.strip(b' "\r\n').lower() for name in file.readline(_LONGEST_LINE).removeprefix(b"\xef\xbb\xbf").split(b",")]
    if len(columns) != len(_COLUMNS) or set(columns) != _COLUMNS:
        raise DataError(f"{path} does not begin with the header emotion,pixels,Usage, so it is not fer2013.csv; {WHERE}.")
    emotion_at, pixels_at, usage_at = (columns.index(name) for name in (b"emotion", b"pixels", b"usage"))

    pixels, labels, at, usages = bytearray(), list[int](), list[int](), list[str]()
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=2):
        if not line.strip():
            continue
        fields = line.split(b",")
        if len(fields) != len(columns):
            raise DataError(f"{path}, line {number}: {len(columns)} fields expected, {len(fields)} found.")
        row_usage = fields[usage_at].strip(b' "\r\n').decode("ascii", "replace")
        if row_usage not in get_args(Usage):
            raise DataError(
                f"{path}, line {number}: unknown usage {printable(row_usage[:40])!r}; {', '.join(get_args(Usage))} are known."
            )
        label = fields[emotion_at].strip(b' "\r\n')
        if label not in _LABELS:
            shown = printable(label[:40].decode("ascii", "replace"))
            raise DataError(f"{path}, line {number}: the label must be 0 to {len(EMOTIONS_7) - 1}, not {shown!r}.")
        if usage is None or row_usage == usage:
            pixels += _pixels(fields[pixels_at].strip(b' "\r\n'), f"{path}, line {number}")
            labels.append(_LABELS[label])
            at.append(len(usages))
        usages.append(row_usage)
    if not labels:
        raise DataError(f"{path} holds no rows" + (f" of {usage}." if usage else " below its header."))
    images = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, SIDE, SIDE)
    return Rows(images, np.array(labels, dtype=np.int64), np.array(at, dtype=np.int64), tuple(usages))


def _pixels(text: bytes, where: str) -> bytes:
    """2,304 decimal numbers as bytes."""
    try:
        values = np.fromstring(text, dtype=np.int32, sep=" ") if text else np.empty(0, dtype=np.int32)
    except (ValueError, DeprecationWarning) as error:
        raise DataError(f"{where}: the pixels must be whole numbers with spaces between.") from error
    if values.size != SIDE * SIDE:
        raise DataError(f"{where}: {SIDE * SIDE:,} pixels expected ({SIDE}x{SIDE}), {values.size:,} found.")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where}: a pixel must be 0 to 255, but one is {values.min() if values.min() < 0 else values.max()}.")
    return values.astype(np.uint8).tobytes()
