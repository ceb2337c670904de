"""The protocol's messages and their one byte form: fixed-width fields, every length checked, nothing left over.

`client` and `server` take and give these objects; whoever carries them uses `encode` and `decode`. A message that exists is
well-formed, whichever way it was made; who signed it and whether it fits the round is for `client` and `server` to check.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from common.errors import IntegrityError
from common.secagg.keys import SEALED_BYTES
from common.secagg.packing import NARROWEST, WIDEST, pack_bits, packed_size, unpack_bits
from common.secagg.shamir import SHARE_BYTES

MAGIC, VERSION = b"EMSA", 2
MEMBERS_LIMIT, LENGTH_LIMIT, RUN_LIMIT = 2**15, 2**27, 64
"""Devices in a cohort, values in a vector, bytes of a run's name."""
KEY_BYTES, DIGEST_BYTES, SIGNATURE_BYTES = 32, 32, 64

Ids = tuple[int, ...]
Entries = tuple[tuple[int, bytes], ...]
"""Bytes by member, members ascending."""


class Reader:
    """Takes fields off the front of `content`."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = memoryview(content), 0

    def take(self, count: int) -> bytes:
        if count > len(self._content) - self._at:
            raise IntegrityError("This message is cut short.")
        self._at += count
        return bytes(self._content[self._at - count : self._at])

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def finish(self) -> None:
        if self._at != len(self._content):
            raise IntegrityError(f"This message has {len(self._content) - self._at} bytes too many.")


class Kind(Protocol):
    """How one field is checked, written and read."""

    def check(self, value: Any) -> bool: ...
    def write(self, value: Any) -> bytes: ...
    def read(self, reader: Reader) -> Any: ...


@dataclass(frozen=True)
class Number:
    """An unsigned integer below `limit`, big-endian."""

    width: int
    limit: int

    def check(self, value: Any) -> bool:
        return type(value) is int and 0 <= value < self.limit

    def write(self, value: int) -> bytes:
        return value.to_bytes(self.width, "big")

    def read(self, reader: Reader) -> int:
        return reader.number(self.width)


@dataclass(frozen=True)
class Raw:
    """Exactly `size` bytes."""

    size: int

    def check(self, value: Any) -> bool:
        return type(value) is bytes and len(value) == self.size

    def write(self, value: bytes) -> bytes:
        return value

    def read(self, reader: Reader) -> bytes:
        return reader.take(self.size)


class Name:
    """Printable ASCII, 1 to `RUN_LIMIT` characters."""

    def check(self, value: Any) -> bool:
        return type(value) is str and 1 <= len(value) <= RUN_LIMIT and value.isascii() and value.isprintable()

    def write(self, value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    def read(self, reader: Reader) -> str:
        return reader.take(reader.number(1)).decode("ascii", errors="replace")


class Identities:
    """Identity keys (32 bytes each), ascending."""

    def check(self, value: Any) -> bool:
        return (
            type(value) is tuple
            and len(value) <= MEMBERS_LIMIT
            and all(type(item) is bytes and len(item) == KEY_BYTES for item in value)
            and _ascending(value)
        )

    def write(self, value: tuple[bytes, ...]) -> bytes:
        return len(value).to_bytes(2, "big") + b"".join(value)

    def read(self, reader: Reader) -> tuple[bytes, ...]:
        return tuple(reader.take(KEY_BYTES) for _ in range(reader.number(2)))


class Members:
    """Member numbers, ascending."""

    def check(self, value: Any) -> bool:
        return type(value) is tuple and all(MEMBER.check(item) for item in value) and _ascending(value)

    def write(self, value: Ids) -> bytes:
        return len(value).to_bytes(2, "big") + b"".join(map(MEMBER.write, value))

    def read(self, reader: Reader) -> Ids:
        return tuple(MEMBER.read(reader) for _ in range(reader.number(2)))


@dataclass(frozen=True)
class PerMember:
    """Exactly `size` bytes for each of some members, members ascending."""

    size: int

    def check(self, value: Any) -> bool:
        return (
            type(value) is tuple
            and all(type(item) is tuple and len(item) == 2 for item in value)
            and all(MEMBER.check(member) and Raw(self.size).check(content) for member, content in value)
            and _ascending([member for member, _ in value])
        )

    def write(self, value: Entries) -> bytes:
        return len(value).to_bytes(2, "big") + b"".join(MEMBER.write(member) + content for member, content in value)

    def read(self, reader: Reader) -> Entries:
        return tuple((MEMBER.read(reader), reader.take(self.size)) for _ in range(reader.number(2)))


class Width:
    """Bits of a ring integer."""

    def check(self, value: Any) -> bool:
        return type(value) is int and NARROWEST <= value <= WIDEST

    def write(self, value: int) -> bytes:
        return bytes([value])

    def read(self, reader: Reader) -> int:
        return reader.number(1)


@dataclass(frozen=True, eq=False)
class RingVector:
    """Flat uint32 `values`, each below 2^width."""

    values: NDArray[np.uint32]
    width: int = WIDEST


class Vector:
    """A `RingVector`: its width, the number of its values, and their bits as `packing` lays them out."""

    def check(self, value: Any) -> bool:
        if not (isinstance(value, RingVector) and Width().check(value.width) and isinstance(value.values, np.ndarray)):
            return False
        values = value.values
        return (
            values.dtype == np.uint32
            and values.ndim == 1
            and len(values) <= LENGTH_LIMIT
            and int(values.max(initial=0)) >> value.width == 0
        )

    def write(self, value: RingVector) -> bytes:
        return bytes([value.width]) + len(value.values).to_bytes(4, "big") + pack_bits(value.values, value.width)

    def read(self, reader: Reader) -> RingVector:
        width, count = reader.number(1), reader.number(4)
        if not Width().check(width):
            raise IntegrityError(f"Ring integers have {NARROWEST} to {WIDEST} bits, not {width}.")
        return RingVector(unpack_bits(reader.take(packed_size(count, width)), count, width), width)


MEMBER = Number(2, MEMBERS_LIMIT)


def _ascending(items: Sequence[Any]) -> bool:
    return all(one < other for one, other in pairwise(items))


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
