"""`--forget`: the pictures, the consent and what capture derived from them are deleted; the privacy ledger stays, and why.

Called by `fl_client.capture_commands` after the owner confirmed it.
"""

import os
import shutil
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from common.emotions import canonical_emotion
from common.errors import DataError
from common.files import fsync_folder, locked
from fl_client.capture.album import LOCK
from fl_client.own_head import forget_heads
from models.faces.folder import CONSENT, OWN_FOLDER, SESSION_FOLDER, SUFFIXES
from models.faces.report import printable

WHY_THE_LEDGER_STAYS = (
    "What was spent stays spent: models that were trained keep what they learnt within that bound, and a ledger that could be "
    "deleted would let new pictures of the same people spend it again."
)


@dataclass(frozen=True)
class Forgotten:
    """What was wiped and what was left.

    Attributes:
        pictures: number of picture files deleted.
        ledger: whether the folder holds the device's keys and privacy ledger, which stay.
        left: what else is still there, because capture did not put it there; relative, printable.
        gone: the folder itself was empty in the end and was removed.
    """

    pictures: int
    ledger: bool
    left: tuple[str, ...]
    gone: bool


def require_folder(folder: Path) -> None:
    """Refuse what is no folder of faces, before anybody is asked to confirm.

    Raises:
        DataError: it is missing, no folder, or has neither an emotion's folder nor a consent.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: nothing is there to forget.")
    ours = {CONSENT, SESSION_FOLDER, OWN_FOLDER}
    if not any(name in ours or canonical_emotion(name) for name in os.listdir(folder)):
        raise DataError(f"{folder} holds no faces: it has no folder of an emotion. Nothing was deleted.")


def forget(folder: Path) -> Forgotten:
    """Delete all pictures in the emotions' folders, `CONSENT`, `SESSION_FOLDER` and heads fitted to them; never follow links.

    Raises:
        DataError: as `require_folder`.
    """
    require_folder(folder)
    (folder / CONSENT).unlink(missing_ok=True)  # first: from here on no running capture stores a face
    fsync_folder(folder)
    session = folder / SESSION_FOLDER
    lock = session / LOCK
    with locked(lock) if lock.is_file() and not lock.is_symlink() and not session.is_symlink() else nullcontext():
        return _forget(folder)


def _forget(folder: Path) -> Forgotten:
    pictures = 0
    for entry in list(os.scandir(folder)):
        if not canonical_emotion(entry.name):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            path.unlink()
        elif entry.is_dir(follow_symlinks=False):
            pictures += _empty(path)
    forget_heads(folder)  # after the pictures: nobody who reads them from here on finds one
    session = folder / SESSION_FOLDER
    if session.is_symlink():
        session.unlink()
    else:
        shutil.rmtree(session, ignore_errors=True)
    fsync_folder(folder)
    left = sorted(printable(str(path.relative_to(folder))) for path in folder.iterdir() if path.name != OWN_FOLDER)
    ledger = (folder / OWN_FOLDER).exists()
    if not left and not ledger and not folder.is_symlink():
        with suppress(OSError):
            folder.rmdir()
    return Forgotten(pictures, ledger, tuple(left), not folder.exists())


def _empty(folder: Path) -> int:
    """Delete the pictures directly in an emotion's folder, half-written ones too, and the folder if nothing else is in it."""
    pictures = 0
    for path in list(folder.iterdir()):
        name = path.name.lower()
        if name.endswith(SUFFIXES) and (path.is_symlink() or path.is_file()):
            path.unlink()
            pictures += not name.startswith(".")
        elif name.startswith(".") and any(f"{suffix}." in name for suffix in SUFFIXES) and path.is_file():
            path.unlink()
    if not any(folder.iterdir()):
        with suppress(OSError):
            folder.rmdir()
    return pictures
