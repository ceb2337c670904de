"""The wire format of Protocol Buffers, read without the library: `models.onnx_outputs` and the camera loop look into ONNX files.

protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
"""Wire types."""


@dataclass(frozen=True)
class Field:
    """A field of a message: it begins at `start`, what it holds at `inner`, and the next one at `end`."""

    number: int
    wire: int
    start: int
    inner: int
    end: int


def fields(content: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in content[at:end].

    Raises:
        ValueError, IndexError: it is no message, or one that is written as no program writes it.
    """
    while at < end:
        start = at
        key, at = _number(content, at)
        wire, inner = key & 7, at
        if wire == VARINT:
            _, at = _number(content, at)
        elif wire == BYTES:
            length, inner = _number(content, at)
            at = inner + length
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if wire == EIGHT_BYTES else 4
        else:
            raise ValueError(f"There is no wire type {wire}.")
        if at > end or not 0 < key >> 3 < 1 << 29:
            raise ValueError("A field reaches beyond its message, or has no such number.")
        yield Field(key >> 3, wire, start, inner, at)


def _number(content: bytes, at: int) -> tuple[int, int]:
    """The varint at a place, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("A number has more than ten bytes.")
