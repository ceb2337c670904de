"""When to look for a registry's newest version: once a second, and after a refusal less and less often.

REST (`fl_server.predict`) and the camera page on one's own machine (`fl_client.webcam.serving`) ask before each answer. Verifying
a version reads and hashes all of it, so one that was refused is not verified each second; but it is again, because what refused
it may pass: a full disk, a repaired file, a key that is now trusted.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import EmoflError
from models.published import LATEST

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between looks; after n refusals in a row 2^n times the first, up to the second."""


@dataclass
class Lookout:
    """Remembers when one registry was looked at, and with what success. Used by one thread at a time.

    Attributes:
        registry: the folder that holds `LATEST`.
        now: seconds, of a clock that never goes back.
    """

    registry: Path
    now: Callable[[], float] = time.monotonic
    _next: float = -math.inf
    _refusals: int = 0
    _latest: bytes = b""
    _told: str = ""

    def look(self, take: Callable[[], None], tell: Callable[[str], None]) -> None:
        """If it is time, call `take`, which takes the newest version over or raises; the same refusal is told once."""
        if not self.due():
            return
        try:
            take()
        except (EmoflError, OSError) as error:
            self.looked(refused=True)
            if str(error) != self._told:
                self._told = str(error)
                tell(str(error))
        else:
            self.looked(refused=False)

    def due(self) -> bool:
        """Whether to look now: the pause is over, or since a refusal `LATEST` has come to name another version."""
        if self.now() >= self._next:
            self._latest = _short(self.registry / LATEST)  # before the look, so that no later change is missed
            return True
        if self._refusals and _short(self.registry / LATEST) != self._latest:
            self._latest = _short(self.registry / LATEST)
            return True
        return False

    def looked(self, *, refused: bool) -> None:
        """Say how the look ended."""
        self._refusals = self._refusals + 1 if refused else 0
        self._next = self.now() + min(PAUSE * 2 ** min(self._refusals, 16), LONGEST_PAUSE)


def _short(path: Path) -> bytes:
    """The beginning of a file that others write; empty where it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(handle, 256)
    except OSError:
        return b""
    finally:
        os.close(handle)
