"""Who runs with a server's folder, and what it last said about itself. Small, so that `fl-server status` starts at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.canonical import decode, encode
from common.errors import EmoflError, RunError
from common.files import write_atomic
from common.processes import PATIENCE, is_held, only_process

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
    path, end = folder / LOCK, time.monotonic() + PATIENCE
    while is_held(path):
        found = path.read_text().strip()
        if found.isdigit():
            return int(found)
        # It has the lock and has not written its number yet.
        if time.monotonic() > end:
            raise RunError(f"{path} is held, and by whom it does not say: somebody else's program has it open.")
        time.sleep(0.02)
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
