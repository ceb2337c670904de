"""How a device on the server's own machine joins without a code: the server leaves one where the same user alone can read it.

`fl_server.service` offers it, `fl_client.take_part` looks for it. The file is 0600 in a 0700 folder that ends with the session.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from common.errors import IntegrityError
from common.files import read_plain, write_atomic

FILE = "join-code"
LONGEST = 4096


def runtime_folder() -> Path:
    """The user's own runtime folder of this program; it need not exist."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "emofl" if base else Path(tempfile.gettempdir()) / f"emofl-{os.getuid()}"


def has_room() -> bool:
    """Whether there is a safe place for a code; it is made if need be."""
    folder = runtime_folder()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    return _own(folder, stat.S_ISDIR)


def offer(code: str) -> bool:
    """Leave `code` for the next device of the same user; False where there is no safe place for it."""
    if not has_room():
        return False
    try:
        write_atomic(runtime_folder() / FILE, code.encode(), mode=0o600)
    except OSError:
        return False
    return True


def withdraw(code: str) -> None:
    """Take the offer of this code back; another server's stays."""
    if find() == code:
        (runtime_folder() / FILE).unlink(missing_ok=True)


def find() -> str | None:
    """The code that a server of the same user offers on this machine, or None."""
    folder = runtime_folder()
    if not _own(folder, stat.S_ISDIR) or not _own(folder / FILE, stat.S_ISREG):
        return None
    try:
        return read_plain(folder / FILE, LONGEST).decode("ascii", "replace").strip() or None
    except IntegrityError:
        return None


def _own(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether `path` itself is of `kind`, belongs to this user, and is open to nobody else."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return kind(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
