"""SIGTERM as Ctrl-C: what `kill` and a service manager send unwinds a program instead of ending it where it stands."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """Until the block ends, the first SIGTERM raises `KeyboardInterrupt`; those after it leave alone what is being cleared up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
