"""Files that native libraries are to open by name: OpenCV ends the process without a word at a name that is not UTF-8.

Pictures are read as bytes here, whatever their name. Films and .parquet tables are refused first, with a sentence.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from common.errors import DeviceError
from models.faces.report import printable

MOST_BYTES = 2**30
"""Of one picture's file; a longer one is not read into memory."""


def utf8_name(path: Path) -> str:
    """The name as native libraries take it.

    Raises:
        DeviceError: it is not valid UTF-8.
    """
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DeviceError(
            f"The name of {printable(name)} is not valid UTF-8, which the library that opens it needs: use another name."
        ) from None
    return name


def read_picture(path: Path) -> NDArray[np.uint8] | None:
    """The picture in `path`, upright, (H, W, 3) uint8 blue-green-red; None where it cannot be read as one."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    return None if picture is None else np.asarray(picture, dtype=np.uint8)
