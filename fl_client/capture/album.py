"""The pictures in a device's training folder: stored, counted, relabelled and deleted one by one, whole after any crash.

`Studio` and the import write through it. The folder itself is all there is to know: a new session counts what it finds.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.emotions import EMOTIONS_8, canonical_emotion
from common.errors import DataError
from common.files import fsync_folder, locked, write_atomic
from fl_client.capture import consent
from models.faces.folder import CONSENT, SESSION_FOLDER, SUFFIXES
from models.faces.picture import Unusable, digest, read_grey
from models.faces.quality import bits_apart, fingerprint

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700

LOCK = "lock"
"""In `SESSION_FOLDER`: who writes pictures or forgets them holds it."""
_NUMBER = re.compile(r"^(\d{1,9})\.")


@dataclass(frozen=True, order=True)
class Stored:
    """One picture of the folder.

    Attributes:
        emotion: its canonical name.
        path: of the file.
    """

    emotion: str
    path: Path

    @property
    def name(self) -> str:
        """For people and pages: the last two parts of the path."""
        return f"{self.path.parent.name}/{self.path.name}"


class Album:
    """The folder `my_faces` with one folder per emotion.

    Attributes:
        folder: where it is.
        yes: the consents under which faces are seen and stored; none before the first is met.
        tightened: files and folders that others could read before this opening, and cannot now.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder if there is none, close it to others, and clear away what a crash left half-written.

        Raises:
            DataError: it is no folder, or cannot be made or read.
        """
        self.folder = folder
        self.open()

    def open(self) -> None:
        """As at the beginning; the folder may be gone since.

        Raises:
            DataError: as at the beginning.
        """
        folder = self.folder
        try:
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            (folder / SESSION_FOLDER).mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            os.close(os.open(folder / SESSION_FOLDER / LOCK, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, PRIVATE_FILE))
            self.tightened = self._tighten()
            self.read_again()
            self.meet()
        except FileExistsError as error:
            raise DataError(f"{folder} is not a folder: --data takes the folder that the pictures go into.") from error
        except OSError as error:
            raise DataError(f"{folder} cannot be used ({error.strerror}): --data takes a folder of your own.") from error

    def meet(self) -> None:
        """Go on under the yes that stands now, if there is one; nothing seen under another may be kept then."""
        given = consent.given(self.folder)
        self.yes = given if consent.holds(given) else ()

    def stands(self) -> bool:
        """Whether the very yes still stands that this album met first, and not one given after `--forget` took it back."""
        given = consent.given(self.folder)
        if not consent.goes_on(self.yes, given):
            return False
        self.yes = given
        return True

    def require_yes(self) -> None:
        """Refuse to go on unless it `stands`.

        Raises:
            NotGiven: it does not.
        """
        if not self.stands():
            raise consent.NotGiven

    def read_again(self) -> None:
        """The files changed beside this album: look at all of them anew."""
        self._prints: dict[str, list[tuple[Path, NDArray[np.uint8]]]] = {name: [] for name in EMOTIONS_8}
        for stored in self.pictures():
            self._remember(stored)

    def pictures(self) -> list[Stored]:
        """Every picture file, by emotion in canonical order, then by name; synonyms' folders count, links do not."""
        found = []
        for folder in self._emotion_folders():
            emotion = canonical_emotion(folder.name)
            with os.scandir(folder) as entries:
                found += [
                    Stored(emotion or "", Path(entry.path))
                    for entry in entries
                    if entry.name.lower().endswith(SUFFIXES)
                    and not entry.name.startswith(".")
                    and entry.is_file(follow_symlinks=False)
                ]
        return sorted(found, key=lambda stored: (EMOTIONS_8.index(stored.emotion), stored.path))

    def counts(self) -> dict[str, int]:
        """Number of pictures of each emotion, zeros included."""
        counts = dict.fromkeys(EMOTIONS_8, 0)
        for stored in self.pictures():
            counts[stored.emotion] += 1
        return counts

    def save(self, emotion: str, square: NDArray[np.uint8]) -> Stored:
        """Store a grey (side, side) square under the next free number.

        Raises:
            NotGiven: nobody agreed, or `--forget` took the yes back meanwhile, whether or not somebody agreed anew.
        """
        content = BytesIO()
        Image.fromarray(square).save(content, "png")
        with self._agreed():
            path = self._next_free(emotion, ".png")
            write_atomic(path, content.getvalue(), PRIVATE_FILE)
        stored = Stored(emotion, path)
        self._prints[emotion].append((path, fingerprint(square)))
        return stored

    def delete(self, stored: Stored) -> bool:
        """Remove a picture; whether it was still there."""
        there = os.path.lexists(stored.path)
        stored.path.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            fsync_folder(stored.path.parent)
        self._forget(stored.path)
        return there

    def put_back(self, stored: Stored, content: bytes) -> Stored:
        """Write a picture again that was deleted in this session; under the next free number if another has its name now.

        Raises:
            NotGiven: as `save`.
        """
        with self._agreed():
            stored.path.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            taken = os.path.lexists(stored.path)
            path = self._next_free(stored.emotion, stored.path.suffix) if taken else stored.path
            write_atomic(path, content, PRIVATE_FILE)
        self.read_again()
        return Stored(stored.emotion, path)

    def relabel(self, stored: Stored, emotion: str) -> Stored:
        """Move a picture to another emotion; it is at one of the two places at any moment.

        Raises:
            DataError: the picture is gone.
            NotGiven: as `save`.
        """
        with self._agreed():
            path = self._next_free(emotion, stored.path.suffix)
            try:
                os.rename(stored.path, path)
            except FileNotFoundError as error:
                raise DataError(f"{stored.name} is gone.") from error
            for parent in {path.parent, stored.path.parent}:
                fsync_folder(parent)
        self._forget(stored.path)
        moved = Stored(emotion, path)
        self._remember(moved)
        return moved

    def nearest(self, emotion: str, square: NDArray[np.uint8]) -> tuple[int, int]:
        """Bits, 0 to 128, between a face and the most similar one stored under `emotion`, and under any other; 128: none."""
        own = [bits for _, bits in self._prints[emotion]]
        others = [bits for name, prints in self._prints.items() if name != emotion for _, bits in prints]
        print_ = fingerprint(square)
        apart = [int(bits_apart(np.stack(prints), print_).min()) if prints else 128 for prints in (own, others)]
        return apart[0], apart[1]

    def find(self, name: str) -> Stored | None:
        """The picture called `emotion/file` by `Stored.name`, if there is one."""
        return next((stored for stored in self.pictures() if stored.name == name), None)

    def with_content(self, stored: Stored, content: bytes) -> Stored | None:
        """The picture whose file has this digest: `stored` if it still is that, else one that it may have become; None: gone."""
        nearest_first = sorted(self.pictures(), key=lambda one: one != stored)
        return next((one for one in nearest_first if content_of(one) == content), None)

    def _emotion_folders(self) -> list[Path]:
        if not self.folder.exists():  # --forget took it away
            return []
        with os.scandir(self.folder) as entries:
            return [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False) and canonical_emotion(e.name)]

    def _next_free(self, emotion: str, suffix: str) -> Path:
        folder = self.folder / emotion
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        number = max((int(match[1]) for name in os.listdir(folder) if (match := _NUMBER.match(name))), default=0) + 1
        while os.path.lexists(path := folder / f"{number:05d}{suffix}"):  # past the longest number that is counted
            number += 1
        return path

    @contextmanager
    def _agreed(self) -> Iterator[None]:
        """Alone among captures, and while its yes stands; `forget` holds the same lock, and removes it."""
        lock = self.folder / SESSION_FOLDER / LOCK
        if not lock.exists():
            raise consent.NotGiven
        with locked(lock):
            self.require_yes()
            yield

    def _remember(self, stored: Stored) -> None:
        try:
            self._prints[stored.emotion].append((stored.path, fingerprint(read_grey(stored.path))))
        except Unusable:
            return

    def _forget(self, path: Path) -> None:
        for prints in self._prints.values():
            prints[:] = [(known, bits) for known, bits in prints if known != path]

    def _tighten(self) -> int:
        changed = 0
        for folder in (self.folder, self.folder / SESSION_FOLDER, *self._emotion_folders()):
            changed += _close(folder, PRIVATE_FOLDER)
        for stored in self.pictures():
            changed += _close(stored.path, PRIVATE_FILE)
        if (self.folder / CONSENT).exists():
            changed += _close(self.folder / CONSENT, PRIVATE_FILE)
        for folder in self._emotion_folders():
            for leftover in folder.glob(".?????.png.*"):
                leftover.unlink(missing_ok=True)
        return changed


def content_of(stored: Stored) -> bytes | None:
    """Digest of a picture's file; None if it is gone or cannot be read."""
    try:
        return digest(stored.path)
    except Unusable:
        return None


def _close(path: Path, mode: int) -> bool:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or not stat.S_IMODE(status.st_mode) & 0o077:
        return False
    os.chmod(path, mode)
    return True
