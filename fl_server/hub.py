"""The registry: a folder of signed versions that only grows. The server's rounds publish to it; `fl-server models` checks it.

A version is written aside, made durable, renamed into place, and only then named by `LATEST`: see docs/registry.md.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from common.canonical import sha256
from common.errors import ConfigError, IntegrityError, ModelError, RunError
from common.files import fsync_folder, locked, write_atomic, write_once
from common.identity import PublicKey, SigningKey, grouped
from models.manifest import CONTEXT, MANIFEST, ONNX, SAFETENSORS, SIGNATURE, FileEntry, FileName, Manifest, ModelFacts
from models.published import (
    LATEST,
    PUBLISHER,
    VERSIONS,
    PublishedModel,
    latest_name,
    read_manifest,
    read_registered,
    registry_key,
    version_names,
)
from models.retiring import delete, retire

log = logging.getLogger("emofl.server")

LOCK = ".lock"
KEEPS = "A registry keeps at least its latest version: keep must be 1 or more, not {}."


@dataclass(frozen=True)
class PublishedVersion:
    """What `publish` wrote: the version's folder, its manifest, and the manifest file's SHA-256."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str

    @property
    def name(self) -> str:
        """Such as 000012-r0007."""
        return self.manifest.version


class Registry:
    """A registry folder and the key that signs for it.

    Args:
        folder: made at the first publication.
        key: the publisher's; a registry belongs to one key for good.
        keep: how many of the newest versions stay; None keeps all.

    Raises:
        ConfigError: `keep` is below 1.
    """

    def __init__(self, folder: Path, key: SigningKey, keep: int | None = None) -> None:
        if keep is not None and keep < 1:
            raise ConfigError(KEEPS.format(keep))
        self.folder, self.key, self.keep = folder, key, keep

    def publish(self, weights: dict[str, NDArray[np.float32]], onnx: bytes, facts: ModelFacts) -> PublishedVersion:
        """Sign a model and make it the latest version. Processes that publish at once wait for each other.

        Args:
            weights: the parameters by name; they become model.safetensors.
            onnx: the same model as `models.export` checked it.

        Raises:
            ModelError: a weight is not float32, or not finite.
            IntegrityError: the registry belongs to another key, or its newest manifest is not ours.
            RunError: the folder cannot be written.
        """
        files: dict[FileName, bytes] = {ONNX: onnx, SAFETENSORS: _serialise(weights)}
        try:
            self._versions.mkdir(parents=True, exist_ok=True)
            fsync_folder(self.folder.parent)
            with locked(self.folder / LOCK):
                self._clean()
                self._claim()
                version = self._write(files, facts)
                self._point_at(version.name)
                if self.keep is not None:
                    self._retire(self.keep)
        except OSError as error:
            raise RunError(f"The registry {self.folder} cannot be written: {error.strerror or error}.") from error
        return version

    @property
    def _versions(self) -> Path:
        return self.folder / VERSIONS

    def _clean(self) -> None:
        """Remove what a crash left; no reader looks at these names."""
        delete((*self._versions.glob(".new-*"), *self._versions.glob(".old-*")))
        for path in (*self.folder.glob(f".{LATEST}.*"), *self.folder.glob(f".{PUBLISHER}.*")):
            path.unlink()

    def _claim(self) -> None:
        write_once(self.folder / PUBLISHER, self.key.public.pem())
        owner = registry_key(self.folder)
        if owner != self.key.public:
            raise IntegrityError(
                f"The registry {self.folder} belongs to the key {grouped(owner.fingerprint)}; this server signs with "
                f"{grouped(self.key.public.fingerprint)}. Use that key, or another folder."
            )

    def _write(self, files: dict[FileName, bytes], facts: ModelFacts) -> PublishedVersion:
        sequence, previous = self._next()
        manifest = Manifest(
            **dict(facts),
            schema_version=1,
            sequence=sequence,
            files={name: FileEntry(sha256=sha256(content), bytes=len(content)) for name, content in files.items()},
            previous=previous,
        )
        signed = manifest.content()
        aside = Path(tempfile.mkdtemp(dir=self._versions, prefix=".new-"))
        aside.chmod(0o755)
        for name, content in files.items():
            write_atomic(aside / name, content)
        write_atomic(aside / MANIFEST, signed)
        write_atomic(aside / SIGNATURE, self.key.sign(CONTEXT, signed))
        folder = self._versions / manifest.version
        os.rename(aside, folder)
        fsync_folder(self._versions)
        return PublishedVersion(folder, manifest, sha256(signed))

    def _next(self) -> tuple[int, str | None]:
        """The next sequence number and the hash of the manifest before it.

        After a crash the newest version may not be named by `LATEST`. It is whole and signed, so it becomes the latest.
        """
        names = version_names(self.folder)
        named = latest_name(self.folder) if os.path.lexists(self.folder / LATEST) else None
        if not names and named is None:
            return 1, None
        if not names or (named is not None and named not in names):
            raise IntegrityError(f"{self.folder} lost the version {named}: restore it, or publish to another folder.")
        try:
            manifest, digest = read_manifest(self._versions / names[-1], self.key.public)
        except IntegrityError as error:
            raise IntegrityError(f"Nothing can be published after {names[-1]}: {error}") from error
        if manifest.version != names[-1]:
            raise IntegrityError(f"Nothing can be published after {names[-1]}: it is a copy of {manifest.version}.")
        if named != names[-1]:
            self._point_at(names[-1])
        return manifest.sequence + 1, digest

    def _point_at(self, name: str) -> None:
        write_atomic(self.folder / LATEST, f"{name}\n".encode())

    def _retire(self, keep: int) -> None:
        """The new version is published by now, whatever becomes of the old ones."""
        try:
            retire(self._versions, version_names(self.folder)[:-keep])
        except OSError as error:
            log.warning("Old models stay in %s: %s.", self._versions, error.strerror or error)


def prune(folder: Path, keep: int, publisher: PublicKey) -> dict[str, int]:
    """Remove all versions but the newest `keep` and the latest. Publications wait meanwhile; readers see whole versions.

    Returns:
        The names of those that are gone, oldest first, and the bytes that each had.

    Raises:
        ConfigError: `keep` is below 1.
        IntegrityError: `folder` is no registry, or its latest version does not hold, so that older ones may be needed.
        RunError: it cannot be written.
    """
    if keep < 1:
        raise ConfigError(KEEPS.format(keep))
    latest_name(folder)
    try:
        with locked(folder / LOCK):
            latest, names, versions = latest_name(folder), version_names(folder), folder / VERSIONS
            try:
                read_registered(folder, latest, publisher)
            except IntegrityError as error:
                raise IntegrityError(f"Nothing is removed: {error}") from error
            old = [name for name in names[:-keep] if name != latest]
            sizes = {name: sum(path.lstat().st_size for path in (versions / name).glob("*")) for name in old}
            retire(versions, old)
    except OSError as error:
        raise RunError(f"The registry {folder} cannot be written: {error.strerror or error}.") from error
    return sizes


def check_registry(folder: Path, publisher: PublicKey) -> Iterator[PublishedModel]:
    """Every version from the oldest kept to the newest, each verified in full and chained to the one before.

    Raises:
        IntegrityError: on reaching the first version that does not hold, or at the end if `LATEST` is wrong. A version that is
            retired meanwhile, with all before it, is none.
    """
    latest = latest_name(folder)
    names = version_names(folder)
    before: PublishedModel | None = None
    for index, name in enumerate(names):
        try:
            model = read_registered(folder, name, publisher)
        except IntegrityError:
            if not set(version_names(folder)).isdisjoint(names[: index + 1]):
                raise
            before = None
            continue
        if before is not None and (
            model.manifest.sequence != before.manifest.sequence + 1 or model.manifest.previous != before.manifest_sha256
        ):
            raise IntegrityError(f"{model.folder} does not follow {before.manifest.version}: the chain is broken.")
        before = model
        yield model
    missing = latest not in version_names(folder)
    if (missing or latest not in names[-2:]) and latest_name(folder) != latest:
        yield from check_registry(folder, publisher)
        return
    if missing:
        raise IntegrityError(f"{folder / LATEST} names {latest}, which is missing.")
    if latest not in names[-2:]:
        raise IntegrityError(f"{folder / LATEST} names {latest}, and {names[-1]} is newer: it was rolled back.")


def _serialise(weights: dict[str, NDArray[np.float32]]) -> bytes:
    for name, array in weights.items():
        if array.dtype != np.float32:
            raise ModelError(f"The model is not published: {name} is {array.dtype}, not float32.")
        if not np.isfinite(array).all():
            raise ModelError(f"The model is not published: {name} has values that are NaN or infinite.")
    return save_safetensors({name: np.asarray(array, order="C") for name, array in weights.items()})
