"""Who runs with a server's folder, and what it last said about itself. Small, so that `fl-server status` starts at once."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.canonical import decode, encode
from common.errors import EmoflError
from common.files import write_atomic
from common.processes import only_process

LOCK, STATUS = "server.lock", "status.json"


@contextmanager
def only_server(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it carries this process's id, and a crash lets go of it.

    Raises:
        RunError: another server has it.
    """
    with only_process(folder / LOCK, f"A server already runs with {folder} (process {{process}}): fl-server stop ends it."):
        yield


def running_server(folder: Path) -> int | None:
    """Process id of the server that runs with `folder`, or None."""
    try:
        with open(folder / LOCK, "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read().strip() or 0) or None
    except OSError:
        pass
    return None


def read_status(folder: Path) -> dict[str, Any]:
    """What the server wrote last about itself; empty before its first start."""
    try:
        return dict(decode((folder / STATUS).read_bytes()))
    except (OSError, EmoflError):
        return {}


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """For `read_status`."""
    write_atomic(folder / STATUS, encode(status), mode=0o600)
