"""Whether the heads of a device were wiped since somebody began to fit one, so that no head of wiped faces is stored afterwards.

`own_head` asks. Each wipe leaves other random bytes in the state folder, beside the remembered homes, which no wipe deletes.
"""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common.files import locked, read_plain, write_atomic
from common.privacy.anchor import Anchor

log = logging.getLogger("emofl.client")

WIPES = "wipes"
"""Name in the folder of the anchors; a file in it, named after a folder of faces, holds the mark of the last wipe."""
_LENGTH = 32


@dataclass(frozen=True)
class Since:
    """What the last wipe had left when somebody began, before any face was read.

    Attributes:
        path: of the mark.
        mark: empty where nothing was ever wiped.
    """

    path: Path
    mark: bytes

    @contextmanager
    def no_wipe(self) -> Iterator[bool]:
        """Whether there was no wipe since; none comes in between while the block runs.

        Raises:
            IntegrityError: the mark cannot be read.
        """
        with _alone(self.path):
            yield _read(self.path) == self.mark


def since_now(data: Path) -> Since:
    """Asked before the faces in `data` are read.

    Raises:
        IntegrityError: the mark cannot be read.
    """
    path = _path(data)
    return Since(path, _read(path))


@contextmanager
def wiping(data: Path) -> Iterator[None]:
    """Around the deletion of the heads, after that of the faces: what was begun before is not stored after it."""
    path = _path(data)
    with _alone(path):
        try:
            write_atomic(path, secrets.token_bytes(_LENGTH), mode=0o600)
        except OSError as error:
            log.warning(
                "%s cannot be written (%s): a head that is being fitted now may still be stored. Stop that, and forget again.",
                path,
                (error.strerror or str(error)).lower(),
            )
        yield


def _path(data: Path) -> Path:
    return Anchor(data).beside(WIPES)


def _read(path: Path) -> bytes:
    return read_plain(path, _LENGTH) if os.path.lexists(path) else b""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One at a time; where the folder cannot be written, no wipe leaves a mark and there is nothing to wait for."""
    with ExitStack() as stack:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(locked(path.with_suffix(".lock")))
        yield
