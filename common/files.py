"""Files that survive a crash: whole or absent, never half-written. Ledgers, keys and the registry are made of them."""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigError, IntegrityError

LEAST_TOKEN = 32
"""Characters of a secret that stands in a file."""


def fsync_folder(folder: Path) -> None:
    """Make a rename or a creation inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, also after a power cut.

    The content goes to a temporary file of the same folder, is fsynced, and renamed over `path`.
    """
    with replacing(path, content, mode):
        pass


@contextmanager
def replacing(path: Path, content: bytes, mode: int = 0o644) -> Iterator[None]:
    """As `write_atomic`, around a block: `content` has its room on disk before, and is at `path` after it.

    If the block raises, the old file stays.
    """
    temporary = _write_temporary(path, content, mode)
    try:
        yield
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def no_room(error: BaseException | None) -> bool:
    """Whether it, or what it came from, says that a disk is full or a quota used up."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def write_once(path: Path, content: bytes, mode: int = 0o644) -> bool:
    """As `write_atomic`, but an existing file stays as it is: of two writers at once, one wins.

    Returns:
        Whether this call made the file.
    """
    temporary = _write_temporary(path, content, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def read_token(path: Path) -> str:
    """The secret that a file holds.

    Raises:
        ConfigError: it is too short for one, which would let everybody in.
    """
    token = path.read_text().strip()
    if len(token) < LEAST_TOKEN:
        raise ConfigError(f"{path} holds no token any more: delete it, and the next start makes another.")
    return token


def _write_temporary(path: Path, content: bytes, mode: int) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def read_plain(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes, from one opening; it never follows a link or waits.

    Raises:
        IntegrityError: missing, unreadable, a link, folder or pipe, or longer than `limit`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        link = error.errno == errno.ELOOP
        reason = "it is a symbolic link" if link else (error.strerror or "unknown reason").lower()
        raise IntegrityError(f"{path} cannot be read: {reason}.") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IntegrityError(f"{path} cannot be read: it is not a plain file.")
    with os.fdopen(handle, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise IntegrityError(f"{path} is larger than the {limit} bytes it may have.")
    return content


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` alone among processes and threads; a crash lets go of it."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
