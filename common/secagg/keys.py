"""The round's secrets between two devices: X25519 agreement, HKDF-SHA256 with everything bound in, AES-256-GCM for shares.

`client` derives masks and seals shares with it; `server` derives the masks of devices that dropped out.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import IntegrityError
from common.secagg.prg import Random
from common.secagg.shamir import SHARE_BYTES

NONCE_BYTES, TAG_BYTES = 12, 16
SEALED_BYTES = NONCE_BYTES + 2 * SHARE_BYTES + TAG_BYTES
"""A share of the seed and one of the key, sealed."""


@dataclass(frozen=True)
class Session:
    """What every key and signature of a round is bound to.

    Attributes:
        run: the run's name.
        round: its number in the run.
        terms: SHA-256 of the invitation: run, round, length, request and the cohort's identities.
        directory: SHA-256 of all ephemeral keys of the cohort, with their signatures.
    """

    run: str
    round: int
    terms: bytes
    directory: bytes

    @property
    def binding(self) -> bytes:
        """All of it as bytes that no other session has."""
        run = self.run.encode()
        return len(run).to_bytes(2, "big") + run + self.round.to_bytes(4, "big") + self.terms + self.directory


@dataclass(frozen=True)
class AgreementKey:
    """An ephemeral X25519 key, for one round; it appears in no repr."""

    private: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, random: Random) -> Self:
        """A new key from 32 random bytes."""
        return cls.from_raw(random(32))

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """The key with this secret of 32 bytes."""
        return cls(X25519PrivateKey.from_private_bytes(raw))

    @property
    def raw(self) -> bytes:
        """The secret: what is shared out among the neighbours."""
        return self.private.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    def mask_seed(self, peer: bytes, session: Session, one: bytes, other: bytes) -> bytes:
        """The seed of the mask that two devices share; the same for both.

        Args:
            peer: the other's public mask key.
            session: what it is bound to.
            one, other: both identities (32 bytes), in any order.
        """
        return self._derive(peer, b"pairwise mask", session, *sorted((one, other)))

    def sealing_key(self, peer: bytes, session: Session, sender: bytes, recipient: bytes) -> bytes:
        """The key for shares that go from the identity `sender` to `recipient`; `peer` is the other's public share key."""
        return self._derive(peer, b"sealed shares", session, sender, recipient)

    def _derive(self, peer: bytes, purpose: bytes, session: Session, one: bytes, other: bytes) -> bytes:
        try:
            shared = self.private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise IntegrityError("A device's ephemeral key is no usable X25519 key.") from error
        info = b"emofl secagg 1\0" + purpose + b"\0" + session.binding + one + other
        return HKDF(hashes.SHA256(), 32, salt=session.directory, info=info).derive(shared)


def check_usable(public: bytes) -> None:
    """Raises:
    IntegrityError: an X25519 key of low order, with which every agreement fails.
    """
    AgreementKey.from_raw(bytes(32))._derive(public, b"check", Session("", 0, b"", b""), b"", b"")


def seal(key: bytes, shares: bytes, session: Session, sender: bytes, recipient: bytes, random: Random) -> bytes:
    """`shares` (72 bytes) under AES-256-GCM with a random nonce: 100 bytes that only `recipient` opens."""
    nonce = random(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, shares, session.binding + sender + recipient)


def unseal(key: bytes, sealed: bytes, session: Session, sender: bytes, recipient: bytes) -> bytes:
    """What was sealed.

    Raises:
        IntegrityError: it was sealed for another round, by another device or for another one, or was altered.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], session.binding + sender + recipient)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError("A sealed share does not open: it was altered, or made for another round or device.") from error


def commitment(seed: bytes, session: Session, owner: bytes) -> bytes:
    """SHA-256 of a device's own seed, by which the server knows the right one when it has put it together.

    Hides the seed, which is 256 bits long and uniform.
    """
    return hashlib.sha256(b"emofl secagg 1\0seed\0" + session.binding + owner + seed).digest()
