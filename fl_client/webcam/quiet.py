"""Keeps OpenCV's, FFmpeg's and libjpeg's own chatter off the person's terminal.

The camera command runs inside it; Python's `sys.stderr`, and with it every sentence of ours, still reaches the terminal.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send what native code writes to file descriptor 2 nowhere, for all threads, until the block ends."""
    try:
        terminal = os.dup(2)
    except OSError:
        yield
        return
    ours = sys.stderr
    with open(os.devnull, "wb") as nowhere, os.fdopen(terminal, "w", buffering=1, errors="backslashreplace") as kept:
        if _writes_to_descriptor_2(ours):
            ours.flush()
            sys.stderr = kept
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            kept.flush()
            os.dup2(terminal, 2)
            sys.stderr = ours


def _writes_to_descriptor_2(stream: object) -> bool:
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):
        return False
