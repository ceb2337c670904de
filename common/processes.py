"""What every long-running command of ours does as a process: end in order, and be the only one. Servers and clients call it."""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from common.errors import RunError


@contextmanager
def stopping_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`; a second one ends the process as usual."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_process(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path`; it carries this process's id, and a crash lets go of it.

    Args:
        refusal: the sentence when another process has it; `{process}` becomes that one's id.

    Raises:
        RunError: another process has it.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(refusal.replace("{process}", lock.read().strip())) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
