"""Which home this device takes part with, so that a command which is told none shows and changes what the device obeys.

`take_part` remembers it whenever it starts; the anchor of the privacy ledger knows it from the first debit on.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from common.errors import IntegrityError
from common.files import read_plain, write_atomic
from common.privacy.anchor import Anchor
from common.privacy.ledger import LedgerPlace
from fl_client.node_settings import POLICY
from models.faces.folder import OWN_FOLDER

HOMES = "homes"
"""Name in the folder of the anchors; a file in it, named after a folder of faces, holds a path."""
LIMIT = 1 << 13
POLICY_COMMAND = "fl-client policy --data DIR"
"""For a device whose folders are not known."""


@dataclass(frozen=True)
class OwnHome:
    """The home that a command is about.

    Attributes:
        elsewhere: it is not the folder beside the faces, so the owner is told where it is.
        objection: why the device does not obey the rules in it; None if it does, as far as is remembered.
    """

    path: Path
    elsewhere: bool
    objection: str | None = None


def home_of(data: Path, home: Path | None) -> Path:
    """Where a device is to take part from: what the owner says, else a folder beside the faces."""
    return home.expanduser().resolve() if home else data / OWN_FOLDER


def own_home(data: Path, home: Path | None) -> OwnHome:
    """What the owner says, else the home that the device with these faces takes part with, else the folder beside them.

    Raises:
        IntegrityError: the device's home, elsewhere, is missing, or the memory of it is damaged.
    """
    said, known = home_of(data, home), next(iter(remembered_homes(data)), None)
    if known is None or _same(said, known):
        return OwnHome(said, not _same(said, data / OWN_FOLDER))
    there = _is_folder(known)
    if home is None and not there:
        raise IntegrityError(
            f"{known}, the home of the device with these faces, is missing: put it back, or give it with --home if it was moved."
        )
    if home is None:
        return OwnHome(known, True)
    objection = (
        f"The device with these faces obeys the rules in {known}, and those in {said} from when it is started with that --home."
    )
    return OwnHome(said, True, objection if there else None)


def remembered_homes(data: Path) -> tuple[Path, ...]:
    """The homes that the device with these faces is known to have, the one it takes part with first.

    Raises:
        IntegrityError: the memory is damaged.
    """
    homes = []
    path = _memory(data)
    if path.exists():
        home = Path(os.fsdecode(read_plain(path, LIMIT)))
        if not home.is_absolute():
            raise IntegrityError(
                f"{path}, which remembers the home of this device, is damaged: delete it, and start the client again."
            )
        homes.append(home)
    recalled = Anchor(data).recall()
    if recalled is not None and recalled[1] is not None:
        homes.append(Path(recalled[1].ledger).parent)
    return tuple(dict.fromkeys(homes))


def remember_home(data: Path, home: Path) -> None:
    """Keep that the device with these faces takes part with this home, for its owner alone."""
    path, content = _memory(data), os.fsencode(home.absolute())
    if path.exists() and read_plain(path, LIMIT) == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(path, content, mode=0o600)


def strange_rules(data: Path, home: Path) -> list[Path]:
    """Files of rules in other homes of this device, which one that takes part with `home` does not obey.

    Raises:
        IntegrityError: as `remembered_homes`.
    """
    others = dict.fromkeys([*remembered_homes(data), data / OWN_FOLDER])
    return [other / POLICY for other in others if not _same(other, home) and _is_file(other / POLICY)]


def policy_command(place: LedgerPlace) -> str:
    """What the owner types to see the rules of the device with this ledger; with --set added, to change them."""
    if place.anchor is None:
        return POLICY_COMMAND
    faces, home = place.anchor.faces, place.path.parent
    words = ["fl-client", "policy", "--data", str(faces)]
    return shlex.join(words if _same(home, faces / OWN_FOLDER) else [*words, "--home", str(home)])


def _memory(data: Path) -> Path:
    return Anchor(data).beside(HOMES)


def _is_folder(path: Path) -> bool:
    """Not where this user may not look, either: a folder of faces that another account used before, as in a container."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
