"""The hidden file in which an output grows until it is whole. Recorders and tables write into one, then rename it."""

import os
import tempfile
from pathlib import Path

from common.errors import DeviceError


def part_of(path: Path) -> Path:
    """A new, empty file (0600) beside `path` with the same ending.

    Raises:
        DeviceError: it cannot be made there.
    """
    if path.is_dir():
        raise DeviceError(f"The output {path} is a folder; give the name of a file.")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise DeviceError(f"The output {path} cannot be created: {error.strerror}.") from error
    os.close(handle)
    return Path(name)


def unused(folder: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    """`folder / name`, with -2, -3, ... behind it where a file of that name with one of `suffixes` is there already."""
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        if not any(os.path.lexists(path.with_name(path.name + suffix)) for suffix in suffixes):
            return path
        number += 1
