"""What every long-running command of ours does as a process: end in order, or with its parent, and be the only one.

Servers and clients call it.
"""

import fcntl
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from common.errors import RunError

PATIENCE = 0.5
"""Seconds for which a lock may be taken by who only looks at it."""


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


def end_with_parent(parent: int, code: int, look: float = 0.2) -> None:
    """From now on, end this process at once when its parent is gone; work that must not be cut off is none of its kind.

    It asks who the parent is: a parent that died and that nobody has waited for still has a process id.

    Args:
        parent: process id; if it is another's child already, the process ends now.
        code: exit code.
        look: seconds between looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(look)
        os._exit(code)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def open_more_files() -> int:
    """Raise the number of files and connections that this process may have open as far as the system lets it; that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Where the system names no limit, it may still refuse a number without one.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def is_held(path: Path) -> bool:
    """Whether a process has the lock file `path`, as `only_process` takes it."""
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def only_process(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path`; it carries this process's id, and a crash lets go of it.

    Args:
        refusal: the sentence when another process has it; `{process}` becomes that one's id.

    Raises:
        RunError: another process has it.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise RunError(refusal.replace("{process}", lock.read().strip())) from error
                time.sleep(0.02)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
