"""Who runs with a server's folder, and what it last said about itself. Small, so that `fl-server status` starts at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.canonical import decode, encode
from common.errors import EmoflError, RunError
from common.files import write_atomic

LOCK, STATUS = "server.lock", "status.json"


@contextmanager
def only_server(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it carries this process's id, and a crash lets go of it.

    Raises:
        RunError: another server has it.
    """
    with open(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"A server already runs with {folder} (process {lock.read().strip()}): fl-server stop ends it."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
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
