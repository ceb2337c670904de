"""What a device remembers of its ledgers outside of their folders, so that deleting or copying one forgets nothing.

`common.privacy.ledger` asks it whenever it reads, and moves it on after each debit. A ledger's name is the digest of its first
line. `folders/KEY.json` says which ledger the faces of a folder belong to, `NAME.json` how far that ledger had come.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from common.canonical import encode
from common.config import Settings
from common.errors import ConfigError, IntegrityError
from common.files import locked, no_room, read_plain, write_atomic
from common.places import state_home

FILE_LIMIT = 1 << 16
DIGEST = r"^[0-9a-f]{64}$"


class Mark(Settings):
    """How far a ledger had come when it was last written.

    Attributes:
        count: its entries.
        head: digest of the last of them.
        ledger: where the file lay.
    """

    count: int = Field(ge=1)
    head: str = Field(pattern=DIGEST)
    ledger: str

    def holds(self, digests: Sequence[str]) -> bool:
        """Whether a ledger of these entries goes on from here."""
        return len(digests) >= self.count and digests[self.count - 1] == self.head


class Link(Settings):
    """Which ledger the faces of a folder belong to.

    Attributes:
        name: digest of the ledger's first line.
        faces: the folder, as it was called.
    """

    name: str = Field(pattern=DIGEST)
    faces: str


Kept = TypeVar("Kept", Mark, Link)


def state_folder() -> Path:
    """Where the user's anchors live: $XDG_STATE_HOME/emofl/ledgers, by default ~/.local/state/emofl/ledgers."""
    return state_home() / "ledgers"


@dataclass(frozen=True)
class Anchor:
    """The memory of the ledger that the faces in one folder belong to.

    It stands against forgetting, not against the owner: whoever deletes the ledger and this folder, or copies the pictures alone
    to another place, starts anew.

    Attributes:
        faces: the folder; links on the way to it do not matter.
        folder: of the anchors.
    """

    faces: Path
    folder: Path = field(default_factory=state_folder)

    def beside(self, kind: str) -> Path:
        """Where something of another kind is remembered of the same faces."""
        return self.folder / kind / hashlib.sha256(os.fsencode(os.path.realpath(self.faces))).hexdigest()

    @property
    def _link(self) -> Path:
        return self.beside("folders").with_suffix(".json")

    def _mark(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def recall(self) -> tuple[str, Mark | None] | None:
        """Name and mark of the ledger that the faces belong to, or None where they have none yet. Read it before the ledger.

        Raises:
            IntegrityError: a file of the anchor is damaged.
        """
        link = _read(self._link, Link)
        return None if link is None else (link.name, _read(self._mark(link.name), Mark))

    def check(self, ledger: Path, digests: Sequence[str], recalled: tuple[str, Mark | None] | None) -> None:
        """Compare what is remembered with a ledger's entries.

        Args:
            digests: of all entries, in order.
            recalled: what `recall` gave before they were read.

        Raises:
            IntegrityError: the ledger is missing, another one, or does not hold what was recorded; training has to stop.
        """
        name = digests[0] if digests else None
        if recalled is not None and name != recalled[0]:
            mark = recalled[1]
            last = mark.ledger if mark else "another place"
            count = f"{mark.count} debit{'' if mark.count == 1 else 's'}" if mark else "debits"
            raise IntegrityError(
                f"These faces have a privacy ledger with {count}, last seen at {last}, and {ledger} "
                f"{'is missing or empty' if name is None else 'is another one'}. Put that ledger back, or give its folder with "
                "--home; faces that were never used belong in a folder of their own."
            )
        if name is None:
            return
        mark = recalled[1] if recalled else _read(self._mark(name), Mark)
        if mark is not None and not mark.holds(digests):
            raise IntegrityError(
                f"The privacy ledger {ledger} is an older or another copy: {mark.count} debits were recorded, the last at "
                f"{mark.ledger}, and it does not hold them all. Nothing is trained until you put the newest copy back."
            )

    def behind(self, digests: Sequence[str]) -> int | None:
        """How many of these entries are not remembered; None if nothing is known of this ledger, or of another one for the faces.

        A crash between a debit and its anchor leaves 1; a ledger that was used on another machine too may leave more. Both are
        harmless: nothing is missing from the ledger.
        """
        recalled = self.recall()
        if not digests or recalled is None:
            return None if digests or recalled else 0
        name, mark = recalled
        return len(digests) - mark.count if name == digests[0] and mark is not None and mark.holds(digests) else None

    def advance(self, ledger: Path, digests: Sequence[str]) -> None:
        """Remember these entries, durably; called while `held`, after they are durable themselves."""
        if not digests or self.behind(digests) == 0:
            return
        mark = Mark(count=len(digests), head=digests[-1], ledger=str(ledger.absolute()))
        link = Link(name=digests[0], faces=os.path.realpath(self.faces).encode("utf-8", "replace").decode())
        with self._writable():
            write_atomic(self._mark(link.name), encode(mark.model_dump()), mode=0o600)
            write_atomic(self._link, encode(link.model_dump()), mode=0o600)

    @contextmanager
    def held(self, name: str | None) -> Iterator[None]:
        """Keep other processes from anchoring a ledger to these faces, and from moving on the ledger `name` at another place.

        Raises:
            ConfigError: the anchors' folder cannot be written.
        """
        with ExitStack() as stack:
            with self._writable():
                self._link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                stack.enter_context(locked(self._link.with_suffix(".lock")))
                if name is not None:
                    stack.enter_context(locked(self._mark(name).with_suffix(".lock")))
            yield

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cure = "make room there" if no_room(error) else "set XDG_STATE_HOME to a folder that is kept"
            raise ConfigError(
                f"{self.folder} cannot be written ({(error.strerror or str(error)).lower()}), where this device remembers its "
                f"privacy ledgers: {cure}."
            ) from error


def _read(path: Path, kind: type[Kept]) -> Kept | None:
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(read_plain(path, FILE_LIMIT))
    except (ValidationError, IntegrityError) as error:
        raise IntegrityError(
            f"{path}, which remembers a privacy ledger, is damaged: put it back from a backup; delete it only if you are sure "
            "that the ledger beside your faces is complete."
        ) from error
