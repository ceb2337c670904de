"""The protocol's messages and their one byte form: fixed-width fields, every length checked, nothing left over.

`client` and `server` take and give these objects; whoever carries them uses `encode` and `decode`. A message that exists is
well-formed, whichever way it was made; who signed it and whether it fits the round is for `client` and `server` to check.
"""

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, Self

from common.errors import IntegrityError
from common.secagg.fields import (
    KEY_BYTES,
    LENGTH_LIMIT,
    MEMBER,
    Entries,
    Identities,
    Ids,
    Kind,
    Members,
    Name,
    Number,
    PerMember,
    Raw,
    Reader,
    RingVector,
    Vector,
    Width,
)
from common.secagg.keys import SEALED_BYTES
from common.secagg.packing import WIDEST
from common.secagg.shamir import SHARE_BYTES

MAGIC, VERSION = b"EMSA", 2
DIGEST_BYTES, SIGNATURE_BYTES = 32, 64


@dataclass(frozen=True, eq=False)
class WireMessage:
    """Base of the messages: `code` names the type on the wire, `kinds` its fields in order."""

    code: ClassVar[int]
    kinds: ClassVar[tuple[Kind, ...]]

    def __post_init__(self) -> None:
        for field, kind in zip(fields(self), self.kinds, strict=True):
            if not kind.check(getattr(self, field.name)):
                raise IntegrityError(f"The field {field.name} of this {type(self).__name__} message is malformed.")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, WireMessage) and self.encode() == other.encode()

    def __hash__(self) -> int:
        return hash(self.encode())

    def encode(self) -> bytes:
        """The one byte string of this message."""
        head = MAGIC + bytes([VERSION, self.code])
        return head + b"".join(kind.write(getattr(self, f.name)) for f, kind in zip(fields(self), self.kinds, strict=True))

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Raises:
        IntegrityError: not exactly the bytes of a message of this type.
        """
        reader = Reader(content)
        if reader.take(6) != MAGIC + bytes([VERSION, cls.code]):
            raise IntegrityError(f"This is no {cls.__name__} message of version {VERSION}.")
        values = [kind.read(reader) for kind in cls.kinds]
        reader.finish()
        return cls(*values)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the byte form."""
        return hashlib.sha256(self.encode()).digest()


@dataclass(frozen=True, eq=False)
class Terms(WireMessage):
    """Server -> device: the round. A device that answers has checked it against its own policy.

    Attributes:
        run, round: which one.
        length: values in a vector.
        request: SHA-256 of whatever else both must agree on: clip, model, privacy mechanism.
        cohort: identity keys of the invited devices; a member's number is its place in here.
        width: bits of the ring's integers, 8 to 32: the sum is one modulo 2^width.
    """

    run: str
    round: int
    length: int
    request: bytes
    cohort: tuple[bytes, ...]
    width: int = WIDEST
    code, kinds = 1, (Name(), Number(4, 2**32), Number(4, LENGTH_LIMIT + 1), Raw(DIGEST_BYTES), Identities(), Width())


@dataclass(frozen=True, eq=False)
class Advertisement(WireMessage):
    """Device -> server: its ephemeral public keys, signed. Server sees: that the device takes part."""

    member: int
    mask_key: bytes
    share_key: bytes
    signature: bytes
    code, kinds = 2, (MEMBER, Raw(KEY_BYTES), Raw(KEY_BYTES), Raw(SIGNATURE_BYTES))


@dataclass(frozen=True, eq=False)
class Directory(WireMessage):
    """Server -> every device: everybody's mask key, share key and signature (128 bytes), by member."""

    entries: Entries
    code, kinds = 3, (PerMember(2 * KEY_BYTES + SIGNATURE_BYTES),)


@dataclass(frozen=True, eq=False)
class Shares(WireMessage):
    """Device -> server: shares of its two secrets, sealed for each neighbour. Server sees: ciphertexts."""

    member: int
    commitment: bytes
    sealed: Entries
    code, kinds = 4, (MEMBER, Raw(DIGEST_BYTES), PerMember(SEALED_BYTES))


@dataclass(frozen=True, eq=False)
class Delivery(WireMessage):
    """Server -> one device: who shared, and what its neighbours sealed for it."""

    sharers: Ids
    sealed: Entries
    code, kinds = 5, (Members(), PerMember(SEALED_BYTES))


@dataclass(frozen=True, eq=False)
class MaskedInput(WireMessage):
    """Device -> server: its vector under all its masks, and its signature that it was sent. Server sees: uniform noise."""

    member: int
    signature: bytes
    vector: RingVector
    code, kinds = 6, (MEMBER, Raw(SIGNATURE_BYTES), Vector())


@dataclass(frozen=True, eq=False)
class Survivors(WireMessage):
    """Server -> one device: whose masked vectors arrived, with the signatures of those of its neighbours among them."""

    survivors: Ids
    signatures: Entries
    code, kinds = 7, (Members(), PerMember(SIGNATURE_BYTES))


@dataclass(frozen=True, eq=False)
class Confirmation(WireMessage):
    """Device -> server: its signature of the list of survivors."""

    member: int
    signature: bytes
    code, kinds = 8, (MEMBER, Raw(SIGNATURE_BYTES))


@dataclass(frozen=True, eq=False)
class Quorum(WireMessage):
    """Server -> every device: who confirmed the list of survivors."""

    signatures: Entries
    code, kinds = 9, (PerMember(SIGNATURE_BYTES),)


@dataclass(frozen=True, eq=False)
class Unmasking(WireMessage):
    """Device -> server: shares of the seeds of survivors and of the mask keys of the others. Never both for one member."""

    member: int
    seeds: Entries
    keys: Entries
    code, kinds = 10, (MEMBER, PerMember(SHARE_BYTES), PerMember(SHARE_BYTES))

    def __post_init__(self) -> None:
        super().__post_init__()
        if {member for member, _ in self.seeds} & {member for member, _ in self.keys}:
            raise IntegrityError("This message has both shares of one member.")
