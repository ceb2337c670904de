"""A local registry that holds what a server published: verified versions only, the newest named by `LATEST`.

`fl_client.model_link` fills it; `fl-client webcam --registry` reads it. The layout is that of docs/registry.md.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.canonical import sha256
from common.errors import ConfigError, IntegrityError
from common.files import fsync_folder, write_atomic, write_once
from common.identity import PublicKey
from models.manifest import CONTEXT, MANIFEST, SIGNATURE, FileEntry, Manifest, parse_manifest
from models.published import (
    LATEST,
    PUBLISHER,
    VERSIONS,
    TooLarge,
    latest_name,
    read_manifest,
    read_version,
    registry_key,
    version_names,
)
from models.retiring import retire

PARTIAL = ".partial"
KEPT = 3
"""Versions that stay, so that a reader of the one before is not disturbed."""


@dataclass(frozen=True)
class Announced:
    """A version that the server told of, its signature verified."""

    manifest: Manifest
    content: bytes
    signature: bytes


class Mirror:
    """The local registry in `folder`, for one publisher's models.

    Raises:
        ConfigError: the folder belongs to another publisher.
    """

    def __init__(self, folder: Path, publisher: PublicKey) -> None:
        self.folder, self.publisher = folder, publisher
        self._too_large: set[str] = set()
        (folder / VERSIONS).mkdir(parents=True, exist_ok=True)
        write_once(folder / PUBLISHER, publisher.pem())
        if registry_key(folder) != publisher:
            raise ConfigError(f"{folder} holds another publisher's models: give each server a folder of its own.")

    def newest(self) -> tuple[int, str]:
        """Sequence and manifest hash of the newest version here; 0 and "" when there is none, or none that holds."""
        if not os.path.lexists(self.folder / LATEST):
            return 0, ""
        try:
            manifest, digest = read_manifest(self.folder / VERSIONS / latest_name(self.folder), self.publisher)
        except IntegrityError:
            return 0, ""
        return manifest.sequence, digest

    def verify(self, version: str, content: bytes, signature: bytes) -> Announced | None:
        """What a notice says, or None when it is no news, or of a version that did not fit into this machine's memory.

        Raises:
            IntegrityError: the publisher did not sign it, or it contradicts what is here.
        """
        self.publisher.verify(CONTEXT, content, signature)
        manifest = parse_manifest(content)
        if manifest.version != version:
            raise IntegrityError(f"The server calls version {manifest.version} by the name of {version}.")
        if sha256(content) in self._too_large:
            return None
        sequence, digest = self.newest()
        if manifest.sequence == sequence + 1 and sequence and manifest.previous != digest:
            raise IntegrityError(f"Version {version} does not follow the one before it: the publisher signed two histories.")
        return Announced(manifest, content, signature) if manifest.sequence > sequence else None

    def missing(self, announced: Announced) -> Iterator["Download"]:
        """Its files that are not here in full yet."""
        folder = self.folder / PARTIAL / announced.manifest.version
        for old in (self.folder / PARTIAL).glob("*"):
            if old != folder:
                shutil.rmtree(old)
        folder.mkdir(parents=True, exist_ok=True)
        for name, entry in sorted(announced.manifest.files.items()):
            download = Download(folder / name, name, entry)
            if not download.whole():
                yield download

    def accept(self, announced: Announced) -> None:
        """Verify the downloaded version once more as a whole, and make it the latest.

        Raises:
            IntegrityError: a file is not what was signed; the download is thrown away.
            TooLarge: there is not enough memory; it is thrown away, and the version is no news until the next start.
        """
        name = announced.manifest.version
        partial, folder = self.folder / PARTIAL / name, self.folder / VERSIONS / name
        write_atomic(partial / MANIFEST, announced.content)
        write_atomic(partial / SIGNATURE, announced.signature)
        try:
            read_version(partial, self.publisher)
        except IntegrityError as error:
            shutil.rmtree(partial)
            if isinstance(error, TooLarge):
                self._too_large.add(sha256(announced.content))
            raise
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(partial, folder)
        fsync_folder(folder.parent)
        write_atomic(self.folder / LATEST, f"{name}\n".encode())
        self._retire()

    def _retire(self) -> None:
        retire(self.folder / VERSIONS, version_names(self.folder)[:-KEPT])


class Download:
    """One file on its way. What arrived before a break stays on disk, and is not fetched again."""

    def __init__(self, path: Path, name: str, entry: FileEntry) -> None:
        self.path, self.name, self.entry = path, name, entry

    @property
    def offset(self) -> int:
        """How many bytes are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def whole(self) -> bool:
        """Whether every byte is here and right."""
        if self.offset != self.entry.bytes:
            return False
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.entry.sha256

    def discard(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)

    def write(self, chunks: Iterator[tuple[int, bytes]]) -> None:
        """Append (offset, data) as they come, durably at the end, also when the stream breaks.

        Raises:
            IntegrityError: the chunks do not join up, are too many, or give another file than was signed.
        """
        if self.offset >= self.entry.bytes:
            self.discard()
        with open(self.path, "ab") as file:
            try:
                for offset, data in chunks:
                    if offset != file.tell() or offset + len(data) > self.entry.bytes:
                        raise IntegrityError(f"The server sends other bytes of {self.name} than were asked for.")
                    file.write(data)
            finally:
                file.flush()
                os.fsync(file.fileno())
        if self.offset == self.entry.bytes and not self.whole():
            self.discard()
            raise IntegrityError(f"{self.name} arrived altered and was thrown away: it is not the file that was signed.")
