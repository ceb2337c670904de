"""One picture file, read with care: any format, any turn, damaged or hostile. Folders and imports call it."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.faces.crop import to_grey
from models.faces.report import Reason

SHORTEST_SIDE = 16
"""Pixels; a smaller picture holds no readable face."""

LONGEST_SIDE = 8192
"""Pixels; bounds a picture, and the square it is widened to, to 64 megapixels. Checked in the header, before decoding."""

MOST_BYTES = 256 * 2**20
"""Of one file: what an uncompressed picture of the largest size takes."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_BAND = 512
_EXIF_ORIENTATION = 0x0112


class Unusable(Exception):
    """One picture cannot be used; whoever reads many turns it into a line of a report."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def digest(path: Path) -> bytes:
    """SHA-256 of the file.

    Raises:
        Unusable: it is empty, too large, or cannot be opened.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise Unusable(Reason.EMPTY)
        if size > MOST_BYTES:
            raise Unusable(Reason.TOO_LARGE, f"{size / 2**20:,.0f} MiB")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise Unusable(Reason.UNREADABLE, str(error.strerror)) from error


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The picture in `path`, upright, as (height, width) uint8 grey by the model's own rule.

    Raises:
        Unusable: as the reason says.
    """
    with _opened(_content(path)) as image:
        grey = _upright(_grey(image), _orientation(image))
    if grey.min() == grey.max():
        raise Unusable(Reason.BLANK)
    return grey


def read_colour(path: Path) -> NDArray[np.uint8]:
    """As `decode_colour`, from the file `path`."""
    return decode_colour(_content(path))


def decode_colour(content: bytes, longest: int = LONGEST_SIDE) -> NDArray[np.uint8]:
    """A file's content as a picture, upright, (height, width, 3) uint8 blue-green-red.

    Args:
        longest: pixels that a side may have; checked in the header, before decoding.

    Raises:
        Unusable: as the reason says.
    """
    with _opened(content, longest) as image:
        colour = np.asarray(image.convert("RGB"), dtype=np.uint8)[:, :, ::-1]
        return _upright(colour, _orientation(image))


def _content(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise Unusable(Reason.TOO_LARGE, f"{size / 2**20:,.0f} MiB")
        return path.read_bytes()
    except OSError as error:
        raise Unusable(Reason.UNREADABLE, str(error.strerror)) from error


@contextmanager
def _opened(content: bytes, longest: int = LONGEST_SIDE) -> Iterator[Image.Image]:
    """The picture in `content`; whatever the block raises on a damaged one becomes `Unusable`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                _check_size(*image.size, longest)
                yield image
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(Reason.TOO_LARGE, f"a side has more than {LONGEST_SIDE:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise Unusable(Reason.BROKEN) from error


def _check_size(width: int, height: int, longest: int) -> None:
    if min(width, height) < SHORTEST_SIDE:
        raise Unusable(Reason.TOO_SMALL, f"{width}x{height}, at least {SHORTEST_SIDE}x{SHORTEST_SIDE} is needed")
    if max(width, height) > longest:
        raise Unusable(Reason.TOO_LARGE, f"{width}x{height}, a side has more than {longest:,} pixels")


def _grey(image: Image.Image) -> NDArray[np.uint8]:
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
            bands.append(to_grey(np.asarray(band.convert("RGB"), dtype=np.uint8)[:, :, ::-1]))
    return np.concatenate(bands)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where it is absent or damaged."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF in a picture that is otherwise whole
        return 1


def _upright(picture: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF's orientation (CIPA DC-008, tag 274)."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)
