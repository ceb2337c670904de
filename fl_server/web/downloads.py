"""Files of published versions for everybody, byte for byte as they were signed. `fl_server.pages` gives them out.

A peer that takes them slowly, or many at once, costs a bounded number of open files and no thread.
"""

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Self

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from common.canonical import sha256
from common.errors import EmoflError
from common.files import read_plain
from common.identity import PublicKey
from fl_server.web.facts import read_signed, signature
from models.manifest import MANIFEST, ONNX, SAFETENSORS, VERSION_NAME
from models.manifest import SIGNATURE as MANIFEST_SIGNATURE
from models.published import VERSIONS

log = logging.getLogger("emofl.server")

CHUNK = 64 * 1024
MOST_REMEMBERED = 4096

TYPES = {
    MANIFEST: "application/json",
    MANIFEST_SIGNATURE: "application/octet-stream",
    ONNX: "application/octet-stream",
    SAFETENSORS: "application/octet-stream",
}
"""The files of a version, all that can be downloaded of it; ONNX and safetensors have no registered type."""


@dataclass(frozen=True)
class Limits:
    """Of downloads.

    Attributes:
        downloads, per_address: at the same time; see `fl_server.seats`.
        chunk_seconds: a peer that does not take 64 KiB in this time is left.
        patience: seconds that the camera page's files wait for a place; the page asks for each once.
    """

    downloads: int = 64
    per_address: int = 8
    chunk_seconds: float = 20.0
    patience: float = 10.0


@dataclass(frozen=True)
class OpenFile:
    """A file of a version, open at its beginning: its size in bytes and its SHA-256."""

    content: BufferedReader
    size: int
    digest: str

    def read(self) -> bytes:
        """The next chunk; empty at the end."""
        return self.content.read(CHUNK)


class Downloads:
    """What a registry gives out.

    Args:
        publisher: whose signature counts.
    """

    def __init__(self, registry: Path, publisher: PublicKey) -> None:
        self._registry, self._publisher = registry, publisher
        self._guard, self._hashed = threading.Lock(), dict[tuple[str, str], object]()

    def open(self, version: str, name: str) -> OpenFile | None:
        """A file of a version; None unless it is there and holds exactly what was signed."""
        if not VERSION_NAME.fullmatch(version) or name not in TYPES:
            return None
        folder = self._registry / VERSIONS / version
        known = read_signed(folder, self._publisher)
        if known is None:
            return None
        path = folder / name
        try:
            digest = sha256(read_plain(path, limit=64)) if name == MANIFEST_SIGNATURE else known.hash_of(name)
            content = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except (EmoflError, OSError):
            return None
        if digest is not None and self._holds((version, name), path, content, digest):
            content.seek(0)
            return OpenFile(content, os.fstat(content.fileno()).st_size, digest)
        content.close()
        log.error("%s of %s is not what was signed; it is not given out.", name, version)
        return None

    def _holds(self, key: tuple[str, str], path: Path, content: BufferedReader, digest: str) -> bool:
        """Whether the file has that hash; it is computed once for as long as the file stays the same."""
        seen = signature(path)
        with self._guard:
            if seen is None or seen[1] != os.fstat(content.fileno()).st_ino:
                return False
            if self._hashed.get(key) == (seen, digest):
                return True
            if hashlib.file_digest(content, "sha256").hexdigest() != digest:
                return False
            if len(self._hashed) >= MOST_REMEMBERED:
                self._hashed.clear()
            self._hashed[key] = (seen, digest)
        return True


class Stream(Response):
    """A file in chunks: a peer that does not read holds one or two of them in memory.

    Args:
        read: gives the next chunk, empty at the end.
        done: called when the file is sent or the peer is left.
    """

    def __init__(
        self, headers: dict[str, str], read: Callable[[], Awaitable[bytes]], seconds: float, done: Callable[[], None]
    ) -> None:
        super().__init__(headers=headers)
        self._read, self._seconds, self._done = read, seconds, done

    @classmethod
    def of(cls, whole: Response, seconds: float, done: Callable[[], None]) -> Self:
        """An answer that is in memory, in chunks."""
        content, sent = bytes(whole.body), 0

        async def read() -> bytes:
            nonlocal sent
            sent += CHUNK
            return content[sent - CHUNK : sent]

        return cls(dict(whole.headers), read, seconds, done)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Receiving is left alone: there is nothing that the peer could still say."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            more = True
            while more:
                data = await self._read()
                more = bool(data)
                async with asyncio.timeout(self._seconds):
                    await send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            log.info("A download was not taken and is ended.")
        finally:
            self._done()
