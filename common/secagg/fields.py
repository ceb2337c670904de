"""The kinds of fields that the protocol's messages have, each with one byte form. `common.secagg.wire` makes messages of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import IntegrityError
from common.secagg.packing import NARROWEST, WIDEST, pack_bits, packed_size, unpack_bits

MEMBERS_LIMIT, LENGTH_LIMIT, RUN_LIMIT = 2**15, 2**27, 64
"""Devices in a cohort, values in a vector, bytes of a run's name."""
KEY_BYTES = 32

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
