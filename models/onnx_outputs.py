"""An ONNX file that gives less than it could: whoever needs the logits alone runs them alone. The camera loop and REST call it.

ONNX Runtime computes every output of a file, whichever are fetched; without the heatmap it leaves out what only that needs.
The file's outermost fields are read here, because importing `onnx` takes longer than all the rest of the loop's start.
"""

from common.errors import ModelError
from models.protobuf import BYTES, Field, fields

GRAPH, OUTPUT, NAME = 7, 12, 1
"""Field numbers of ModelProto.graph, GraphProto.output and ValueInfoProto.name (onnx.proto)."""


def only(content: bytes, output: str) -> bytes:
    """The ONNX file `content` with `output` as its only output; as it is where it has no other.

    Raises:
        ModelError: it is no ONNX file, or has no such output.
    """
    try:
        [graph] = [field for field in fields(content, 0, len(content)) if field.number == GRAPH]
        parts = list(fields(content, graph.inner, graph.end))
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


def _name(content: bytes, part: Field) -> str:
    [name] = [field for field in fields(content, part.inner, part.end) if field.number == NAME]
    return content[name.inner : name.end].decode()


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
