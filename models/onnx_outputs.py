"""An ONNX file that gives less than it could: whoever needs the logits alone runs them alone. The camera loop and REST call it.

ONNX Runtime computes every output of a file, whichever are fetched; without the heatmap it leaves out what only that needs.
The file's outermost fields are read here, because importing `onnx` takes longer than all the rest of the loop's start.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import ModelError

GRAPH, OUTPUT, NAME = 7, 12, 1
"""Field numbers of ModelProto.graph, GraphProto.output and ValueInfoProto.name (onnx.proto)."""

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
"""Wire types of Protocol Buffers (protobuf.dev/programming-guides/encoding)."""


@dataclass(frozen=True)
class _Field:
    """A field of a message: it begins at `start`, what it holds at `inner`, and the next one at `end`."""

    number: int
    start: int
    inner: int
    end: int


def only(content: bytes, output: str) -> bytes:
    """The ONNX file `content` with `output` as its only output; as it is where it has no other.

    Raises:
        ModelError: it is no ONNX file, or has no such output.
    """
    try:
        [graph] = [field for field in _fields(content, 0, len(content)) if field.number == GRAPH]
        parts = list(_fields(content, graph.inner, graph.end))
        names = {part: _name(content, part) for part in parts if part.number == OUTPUT}
    except (ValueError, IndexError) as error:
        raise ModelError("This is not an ONNX model.") from error
    if output not in names.values():
        raise ModelError(f"This ONNX model has no output {output!r}.")
    if len(names) == 1:
        return content
    kept = b"".join(content[part.start : part.end] for part in parts if names.get(part, output) == output)
    head = _varint(GRAPH << 3 | BYTES) + _varint(len(kept))
    return content[: graph.start] + head + kept + content[graph.end :]


def _name(content: bytes, part: _Field) -> str:
    [name] = [field for field in _fields(content, part.inner, part.end) if field.number == NAME]
    return content[name.inner : name.end].decode()


def _fields(content: bytes, at: int, end: int) -> Iterator[_Field]:
    """The fields of the message in content[at:end].

    Raises:
        ValueError, IndexError: it is no message.
    """
    while at < end:
        start = at
        key, at = _number(content, at)
        kind, inner = key & 7, at
        if kind == VARINT:
            _, at = _number(content, at)
        elif kind == BYTES:
            length, inner = _number(content, at)
            at = inner + length
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"There is no wire type {kind}.")
        if at > end:
            raise ValueError("A field reaches beyond its message.")
        yield _Field(key >> 3, start, inner, at)


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


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
