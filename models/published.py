"""The only way to a published model: its signature, then every file's hash and size, are verified before anything is parsed.

The camera loop, the command lines and the registry itself read models through `open_published` and `read_version`.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from common.canonical import sha256
from common.errors import IntegrityError
from common.files import read_plain
from common.identity import PublicKey, grouped, parse_fingerprint
from common.places import state_home
from models.known_publishers import KnownPublishers, Pin
from models.manifest import (
    CONTEXT,
    MANIFEST,
    MANIFEST_LIMIT,
    ONNX,
    SAFETENSORS,
    SIGNATURE,
    VERSION_NAME,
    Manifest,
    parse_manifest,
)

LATEST, PUBLISHER, VERSIONS = "LATEST", "publisher.pub", "versions"
"""In a registry folder: the newest version's name, the publisher's key, the folder of versions."""

ATTEMPTS = 5
"""How often a reader follows `LATEST` anew when a version is removed while it reads."""

T = TypeVar("T")
Trust = PublicKey | str | Path
"""Whom to trust: a key, a fingerprint as text, or a key file."""


def trusted(named: str | None) -> Trust | None:
    """What a person named: a key file, else a fingerprint, or nothing."""
    file = Path(named).expanduser() if named else None
    return file if file is not None and file.is_file() else named


class TooLarge(IntegrityError):
    """A version does not fit into this machine's memory; whether it is what was signed was not found out."""


@dataclass(frozen=True)
class PublishedModel:
    """One verified version, held in memory: what it returns is what was hashed.

    Attributes:
        folder: where it was read.
        manifest: the signed facts.
        manifest_sha256: the hash that the next version's `previous` names.
        publisher: the key that signed it.
        registry: set when it was opened as a registry's latest version; `newer_than` looks there.
        known: what remembers the registry, if anything does.
    """

    folder: Path
    manifest: Manifest
    manifest_sha256: str
    publisher: PublicKey
    _files: Mapping[str, bytes] = field(repr=False)
    registry: Path | None = None
    known: KnownPublishers | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str:
        """Of the publisher's key."""
        return self.publisher.fingerprint

    def onnx_bytes(self) -> bytes:
        """The ONNX file: `faces` (N, 1, size, size) float32 to `logits` (N, C) float32."""
        return self._files[ONNX]

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The parameters by name.

        Raises:
            IntegrityError: the file is signed and yet not what a publisher of this project writes.
        """
        try:
            weights = load_safetensors(self._files[SAFETENSORS])
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{self.folder / SAFETENSORS} is not a safetensors file: {error}.") from error
        if odd := [name for name, array in weights.items() if array.dtype != np.float32]:
            raise IntegrityError(f"{self.folder / SAFETENSORS} holds {odd[0]}, which is not float32.")
        return weights


def open_published(path: Path, trust: Trust | None = None, state: Path | None = None) -> PublishedModel:
    """The model in `path`: a registry's latest version, or one version's folder.

    Args:
        trust: whose signature counts. None trusts the key that a registry shows first, and from then on no other.
        state: folder of what is remembered about registries. With `trust` None it defaults to
            `state_home()`; with `trust` given and no `state`, nothing is remembered, and a registry that
            went back to an older version between two openings is not noticed.

    Raises:
        IntegrityError: nothing is published there, or any byte of it is not what the trusted publisher signed.
    """
    known = KnownPublishers(state or state_home()) if trust is None or state is not None else None
    if os.path.lexists(path / LATEST):
        publisher = _publisher(path, trust, known)
        return _open_latest(path, publisher, known)
    if not os.path.lexists(path):
        raise IntegrityError(f"Nothing is published in {path}: there is no such folder.")
    if not os.path.lexists(path / MANIFEST):
        raise IntegrityError(f"Nothing is published in {path}: it holds neither {LATEST} nor {MANIFEST}.")
    return _open_folder(path, trust, known)


def newer_than(current: PublishedModel) -> PublishedModel | None:
    """The registry's latest version if it is newer than `current`, verified in full, else None.

    It costs the reading of one short file when there is nothing new. A model that was opened as a version's folder
    has no newer one.

    Raises:
        IntegrityError: the newer version is refused, or the registry went back to an older one. `current` stays good.
    """
    if current.registry is None or latest_name(current.registry) == current.manifest.version:
        return None
    found = _open_latest(current.registry, current.publisher, current.known)
    if found.manifest.sequence <= current.manifest.sequence:
        raise IntegrityError(
            f"The registry {current.registry} was rolled back: its latest version is {found.manifest.version}, and "
            f"{current.manifest.version} is in use."
        )
    return found


def latest_name(registry: Path) -> str:
    """The version that `LATEST` names.

    Raises:
        IntegrityError: nothing was published yet, or the file does not hold a version's name.
    """
    if not os.path.lexists(registry / LATEST):
        raise IntegrityError(f"Nothing is published in {registry}: it holds no {LATEST}.")
    content = read_plain(registry / LATEST, limit=64)
    try:
        name = content.decode("ascii").removesuffix("\n")
    except UnicodeDecodeError:
        name = ""
    if not VERSION_NAME.fullmatch(name):
        raise IntegrityError(f"{registry / LATEST} does not name a version.")
    return name


def of_latest(registry: Path, read: Callable[[str], T]) -> T:
    """What `read` makes of the latest version's name, with the next one's if that one came, and the other went, meanwhile.

    Raises:
        IntegrityError: from `read`, or the registry changes faster than it reads.
    """
    for _ in range(ATTEMPTS):
        name = latest_name(registry)
        try:
            return read(name)
        except IntegrityError:
            if latest_name(registry) == name:
                raise
    raise IntegrityError(f"The registry {registry} changes faster than it can be read.")


def version_names(registry: Path) -> list[str]:
    """The names of all versions in the registry, oldest first. Folders that are no versions are left out."""
    folder = registry / VERSIONS
    names = [name for name in os.listdir(folder) if VERSION_NAME.fullmatch(name)] if folder.is_dir() else []
    return sorted(names, key=lambda name: [int(part) for part in name.split("-r")])


def read_registered(registry: Path, name: str, publisher: PublicKey) -> PublishedModel:
    """Version `name` of the registry, verified in full, and really that version.

    Raises:
        IntegrityError: it is refused.
    """
    model = read_version(registry / VERSIONS / name, publisher)
    if model.manifest.version != name:
        raise IntegrityError(f"{model.folder} is refused: it holds the manifest of {model.manifest.version}.")
    return model


def read_version(folder: Path, publisher: PublicKey) -> PublishedModel:
    """The version in `folder`, signed by `publisher`; every file is read once.

    Raises:
        IntegrityError: a file is missing, too much, altered, or a link, or another key signed it.
        TooLarge: there is not enough memory.
    """
    try:
        manifest, digest = read_manifest(folder, publisher)
        _check_names(folder)
        files: dict[str, bytes] = {}
        for name, entry in manifest.files.items():
            files[name] = content = read_plain(folder / name, limit=entry.bytes)
            if len(content) != entry.bytes or sha256(content) != entry.sha256:
                raise IntegrityError(f"{name} was altered: it is not the file that was signed.")
    except IntegrityError as error:
        raise IntegrityError(f"{folder} is refused: {error}") from error
    except MemoryError as error:
        raise TooLarge(f"{folder} is refused: this machine has too little free memory to read it.") from error
    return PublishedModel(folder, manifest, digest, publisher, files)


def read_manifest(folder: Path, publisher: PublicKey) -> tuple[Manifest, str]:
    """A version's manifest and its SHA-256, once its signature holds. The model's files are not looked at.

    Raises:
        IntegrityError: it is missing or malformed, or another key signed it.
    """
    if not stat.S_ISDIR(_mode(folder)):
        raise IntegrityError("it is missing, or not a folder.")
    content = read_plain(folder / MANIFEST, MANIFEST_LIMIT)
    publisher.verify(CONTEXT, content, read_plain(folder / SIGNATURE, limit=64))
    return parse_manifest(content), sha256(content)


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _check_names(folder: Path) -> None:
    try:
        found = set(os.listdir(folder))
    except OSError as error:
        raise IntegrityError("it cannot be listed.") from error
    expected = {MANIFEST, SIGNATURE, ONNX, SAFETENSORS}
    if missing := sorted(expected - found):
        raise IntegrityError(f"{missing[0]} is missing.")
    if extra := sorted(found - expected):
        raise IntegrityError(f"{extra[0]!r} is not covered by the signature and does not belong there.")


def _open_folder(folder: Path, trust: Trust | None, known: KnownPublishers | None) -> PublishedModel:
    home = folder.resolve().parent
    if home.name == VERSIONS:
        registry = home.parent
        model = read_version(folder, _publisher(registry, trust, known))
        if known is not None:
            known.remember(registry, Pin(fingerprint=model.fingerprint))
        return model
    if isinstance(trust, PublicKey | Path):
        return read_version(folder, _publisher(home, trust, None))
    raise IntegrityError(f"{folder} lies outside a registry, so nothing tells who published it: name the key file.")


def _open_latest(registry: Path, publisher: PublicKey, known: KnownPublishers | None) -> PublishedModel:
    model = of_latest(registry, lambda name: read_registered(registry, name, publisher))
    if known is not None:
        pin = Pin(fingerprint=model.fingerprint, sequence=model.manifest.sequence, manifest=model.manifest_sha256)
        known.remember(registry, pin)
    return replace(model, registry=registry, known=known)


def _publisher(registry: Path, trust: Trust | None, known: KnownPublishers | None) -> PublicKey:
    if isinstance(trust, PublicKey):
        key = trust
    elif isinstance(trust, Path):
        key = PublicKey.read(trust)
    else:
        key = registry_key(registry)
    if isinstance(trust, str) and key.fingerprint != parse_fingerprint(trust):
        raise IntegrityError(f"The registry {registry} belongs to the key {grouped(key.fingerprint)}, not to the one you trust.")
    if known is not None:
        if trust is not None:
            known.adopt(registry, key.fingerprint)
        known.check(registry, Pin(fingerprint=key.fingerprint))
    return key


def registry_key(registry: Path) -> PublicKey:
    """The key that the registry shows as its own. It proves nothing until somebody compares its fingerprint.

    Raises:
        IntegrityError: there is none.
    """
    if not os.path.lexists(registry / PUBLISHER):
        raise IntegrityError(f"There is no {PUBLISHER} in {registry}: name the publisher's key file.")
    return PublicKey.read(registry / PUBLISHER)
