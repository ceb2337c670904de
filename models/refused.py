"""A registry's newest version that was refused, remembered: it is not read and verified again before something of it changes.

REST (`fl_server.predict`) and the camera page on one's own machine (`fl_client.webcam.serving`) ask once a second.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from common.canonical import sha256
from models.manifest import MANIFEST, SIGNATURE
from models.published import LATEST, VERSIONS

_MOST = 1 << 20


@dataclass
class RefusedVersion:
    """What is remembered about one registry; it begins with nothing.

    Attributes:
        registry: the folder with `LATEST` and `versions`.
    """

    registry: Path
    _state: str = ""

    def note(self, state: str) -> None:
        """The newest version was refused; `state` was taken before it was looked at, so that no later change is missed."""
        self._state = state

    def holds(self, state: str) -> bool:
        """Whether the newest version, in this state, was refused already."""
        return state == self._state


def state_of_latest(registry: Path) -> str:
    """A digest of which version `LATEST` names, of its manifest and signature, and of its files' names, sizes and times.

    It costs some small reads. A file that cannot be read counts as absent.
    """
    name = _read(registry / LATEST)
    folder = registry / VERSIONS / os.fsdecode(name.strip()) if name and b"/" not in name and b"\0" not in name else None
    parts = [name]
    if folder is not None:
        parts += [_read(folder / MANIFEST), _read(folder / SIGNATURE), _listing(folder)]
    return sha256(b"".join(sha256(part).encode() for part in parts))


def _read(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(handle, _MOST)
    except OSError:
        return b""
    finally:
        os.close(handle)


def _listing(folder: Path) -> bytes:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return b""
    lines = sorted(f"{name!r} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_mode}" for name, status in found)
    return "\n".join(lines).encode()
