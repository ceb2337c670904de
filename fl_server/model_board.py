"""Answers WatchModels and FetchModel from the registry's folder, to members alone. `fl_server.device_api` serves it.

One task looks at the registry and the roster for all streams, so that a thousand watchers cost one look.
"""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.device_api import device_api_pb2 as pb
from common.errors import IntegrityError
from common.files import read_plain
from common.identity import PublicKey
from fl_server.roster import EnrolledDevice, Roster
from models.manifest import (
    CONTEXT,
    FILE_LIMIT,
    MANIFEST,
    MANIFEST_LIMIT,
    ONNX,
    SAFETENSORS,
    SIGNATURE,
    VERSION_NAME,
    parse_manifest,
)
from models.published import LATEST, VERSIONS, latest_name

log = logging.getLogger("emofl.server")


class VersionGone(Exception):
    """The version is not in the registry, or not any more."""


class OffsetTooLarge(Exception):
    """The file ends before the offset."""


@dataclass(frozen=True)
class Notice:
    """The newest version, its signature verified."""

    sequence: int
    message: pb.ModelNotice


def read_notice(registry: Path, publisher: PublicKey) -> Notice:
    """The version that `LATEST` names.

    Raises:
        IntegrityError: there is none, or its manifest does not hold.
    """
    name = latest_name(registry)
    folder = registry / VERSIONS / name
    content, signature = read_plain(folder / MANIFEST, MANIFEST_LIMIT), read_plain(folder / SIGNATURE, limit=64)
    publisher.verify(CONTEXT, content, signature)
    manifest = parse_manifest(content)
    if manifest.version != name:
        raise IntegrityError(f"{folder} holds the manifest of {manifest.version}.")
    return Notice(manifest.sequence, pb.ModelNotice(version=name, manifest=content, signature=signature))


class ModelBoard:
    """The newest version, and who may know of it.

    Args:
        registry: the registry's folder; it may appear later.
        publisher: whose signature counts.
    """

    def __init__(self, registry: Path, publisher: PublicKey, roster: Roster, *, chunk_bytes: int) -> None:
        self.registry, self.publisher, self.roster, self.chunk_bytes = registry, publisher, roster, chunk_bytes
        self.newest: Notice | None = None
        self._changed = asyncio.Event()
        self._looked: tuple[object, ...] = ()

    async def look_forever(self, pause_seconds: float) -> None:
        """Wake all streams whenever the registry or the roster changed."""
        while True:
            self.look()
            await asyncio.sleep(pause_seconds)

    def look(self) -> None:
        """Look once; it costs two calls of `stat` while there is no news."""
        found = (_signature(self.registry / LATEST), _signature(self.roster.path))
        if found == self._looked:
            return
        self._looked = found
        if found[0] is not None:
            try:
                self.newest = read_notice(self.registry, self.publisher)
            except IntegrityError as error:
                log.error("devices are not told of the newest model: %s", error)
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, member: Callable[[], EnrolledDevice], after: int) -> AsyncIterator[pb.ModelNotice]:
        """The newest version if its sequence is above `after`, then each newer one.

        Args:
            member: raises when the caller may not go on; asked before each message and after each change of the roster.
        """
        while True:
            changed = self._changed
            member()
            if self.newest is not None and self.newest.sequence > after:
                after = self.newest.sequence
                yield self.newest.message
            else:
                await changed.wait()

    def read(self, member: Callable[[], EnrolledDevice], request: pb.FetchModelRequest) -> Iterator[pb.FileChunk]:
        """A file of a version from an offset, in chunks.

        Raises:
            VersionGone, OffsetTooLarge: see there.
        """
        if not VERSION_NAME.fullmatch(request.version) or request.file not in (ONNX, SAFETENSORS):
            raise VersionGone
        path = self.registry / VERSIONS / request.version / request.file
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise VersionGone from error
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_LIMIT:
                raise VersionGone
            if request.offset > found.st_size:
                raise OffsetTooLarge
            offset = file.seek(request.offset)
            while data := file.read(self.chunk_bytes):
                member()
                yield pb.FileChunk(offset=offset, data=data)
                offset += len(data)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
