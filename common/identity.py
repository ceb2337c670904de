"""Who signed what: Ed25519 keys (RFC 8032) with domain separation. The publisher signs, everybody who loads a model verifies.

What is signed is `context`, one zero byte, then the content, so that a signature for one purpose never holds for another.
"""

import hashlib
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from common.errors import ConfigError, IntegrityError
from common.files import read_plain, write_once

PEM_LIMIT = 4096
"""Bytes; an Ed25519 key in PEM has about 120."""


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key: 32 raw bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise IntegrityError(f"An Ed25519 public key has 32 bytes, not {len(self.raw)}.")

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """From 64 hexadecimal digits."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise IntegrityError("An Ed25519 public key is written as 64 hexadecimal digits.") from error

    @classmethod
    def from_pem(cls, content: bytes) -> Self:
        """From PEM (SubjectPublicKeyInfo), the format of `publisher.pub`."""
        try:
            key = load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise IntegrityError("This is not a public key in PEM format.") from error
        if not isinstance(key, Ed25519PublicKey):
            raise IntegrityError("This public key is not an Ed25519 key.")
        return cls(key.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a PEM file."""
        try:
            return cls.from_pem(read_plain(path, PEM_LIMIT))
        except IntegrityError as error:
            raise IntegrityError(f"The public key {path} cannot be used. {error}") from error

    def pem(self) -> bytes:
        """As PEM (SubjectPublicKeyInfo)."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw key, 64 hexadecimal digits: what two people compare."""
        return hashlib.sha256(self.raw).hexdigest()

    def verify(self, context: str, content: bytes, signature: bytes) -> None:
        """Raises:
        IntegrityError: this key did not sign `content` for `context`.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, _signed(context, content))
        except (InvalidSignature, ValueError) as error:
            raise IntegrityError(f"The signature does not hold for the key {grouped(self.fingerprint)}.") from error


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 private key; it appears in no repr and in no message."""

    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of RFC 8032's 32-byte secret `seed`."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The key in `path` (PKCS8 PEM, mode 0600); a new one is made there when the file does not exist.

        Raises:
            ConfigError: others may read the file, or it holds no unencrypted Ed25519 key.
        """
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_once(path, cls.generate()._pem(), mode=0o600)
            return cls._load(path)
        except OSError as error:
            raise ConfigError(f"The signing key {path} cannot be used: {error.strerror}.") from error

    @classmethod
    def _load(cls, path: Path) -> Self:
        target = path.resolve()
        mode = stat.S_IMODE(target.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"The signing key {path} is open to other users (mode {mode:04o}): run `chmod 600 {path}` if nobody else had "
                "access; else begin anew in another folder, whose new key's fingerprint you give out, since what this one signed "
                "could be anybody's."
            )
        try:
            key = load_pem_private_key(read_plain(target, PEM_LIMIT), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, IntegrityError) as error:
            raise ConfigError(f"The signing key {path} is not an unencrypted private key in PEM format.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"The signing key {path} is not an Ed25519 key.")
        return cls(key)

    def _pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, context: str, content: bytes) -> bytes:
        """The 64-byte signature of `content` for the purpose named `context` (ASCII, without zero byte)."""
        return self.private.sign(_signed(context, content))


def grouped(fingerprint: str) -> str:
    """A fingerprint in groups of four digits, for people."""
    return " ".join(fingerprint[i : i + 4] for i in range(0, len(fingerprint), 4))


def parse_fingerprint(text: str) -> str:
    """A fingerprint as a person types it (any case, spaces, colons) as 64 lower-case hexadecimal digits.

    Raises:
        ConfigError: it is something else.
    """
    digits = text.lower().replace(" ", "").replace(":", "")
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ConfigError(f"{text!r} is not a fingerprint: it has 64 hexadecimal digits, in groups or without.")
    return digits


def _signed(context: str, content: bytes) -> bytes:
    if not context or not context.isascii() or "\0" in context:
        raise ConfigError(f"A signature's context is ASCII text without a zero byte, not {context!r}.")
    return context.encode() + b"\0" + content
