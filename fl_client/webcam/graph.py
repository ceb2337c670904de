"""What a model's ONNX file may hold: the operations that this project's exports are made of, and nothing that decides as it runs.

`Classifier` asks before a session is built. A signature says who published a file, not that it ends: a `Loop` whose condition
looks at the pixels passes every trial and stands still at the first real face. The wire format is read here, because importing
`onnx` takes longer than all the rest of the loop's start; what is unusual in it is refused, so that no other reader of the same
bytes can find more in them.
"""

from dataclasses import dataclass, field

from common.errors import ModelError
from models.protobuf import BYTES, fields

OPERATIONS = frozenset(
    {
        *("Abs", "Add", "BatchNormalization", "Cast", "Clip", "Constant", "ConstantOfShape", "Conv", "Flatten", "Gemm"),
        *("GlobalAveragePool", "HardSigmoid", "HardSwish", "InstanceNormalization", "LessOrEqual", "MatMul", "Mul", "Relu"),
        *("Reshape", "Resize", "Sub", "Unsqueeze"),
    }
)
"""What `models.export`, `models.quantise` and `models.graft` write, for every variant: a test compares."""

SHAPING = {"Reshape": 1, "Resize": 1, "Unsqueeze": 1, "ConstantOfShape": 0}
"""Operations whose inputs from this place on say how large the result is: these must be constants, not made from pixels."""

MOST_PARTS = 100_000
"""Fields that are looked at; the largest export has a fifth of it."""

Place = tuple[int, int]
"""Where a field's content begins and ends."""


@dataclass(frozen=True)
class _Kind:
    """A message: its name for people, the plain fields that it may have, and its fields that are messages themselves."""

    name: str
    plain: frozenset[int]
    inner: dict[int, "_Kind"] = field(default_factory=dict)


# Numbers of onnx.proto.
_TENSOR = _Kind("a tensor", frozenset({1, 2, 8, 9}))
_ATTRIBUTE = _Kind("an attribute", frozenset({1, 2, 3, 4, 8, 20}), {5: _TENSOR})
_NODE = _Kind("a node", frozenset({1, 2, 3, 4}), {5: _ATTRIBUTE})
_INPUT = _Kind("an input", frozenset({1, 2}))
_GRAPH = _Kind("a graph", frozenset({2, 12, 13}), {1: _NODE, 5: _TENSOR, 11: _INPUT})
_MODEL = _Kind("a model", frozenset({1, 2, 3, 8}), {7: _GRAPH})
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATION, _TENSOR_NAME, _INPUT_NAME = 1, 2, 4, 8, 1

_NAMED = {
    ("a model", 20): "steps of training",
    ("a model", 25): "functions of its own",
    ("a node", 7): "operations of another domain",
    ("an attribute", 6): "a graph within the graph",
    ("an attribute", 11): "graphs within the graph",
    ("a tensor", 13): "numbers that stand in another file",
    ("a tensor", 14): "numbers that stand in another file",
}
"""Fields that no export has, and that a hostile file may, for people."""

_Texts = dict[int, list[bytes]]
"""A message's fields of bytes, by number."""


class _Odd(Exception):
    """The file holds what it may not; the text names it."""


@dataclass
class _Found:
    """What is in a file's graph."""

    nodes: list[_Texts] = field(default_factory=list)
    stored: set[bytes] = field(default_factory=set)
    inputs: set[bytes] = field(default_factory=set)
    parts: int = 0


def check_graph(content: bytes, what: str) -> None:
    """Let pass an ONNX file that an export of this project could be; its numbers may be any.

    Args:
        what: names the model in the error's sentence, and begins it.

    Raises:
        ModelError: it is no ONNX file, or holds something else.
    """
    found = _Found()
    try:
        _read(content, (0, len(content)), _MODEL, found)
        _check_nodes(found)
    except _Odd as odd:
        raise ModelError(f"{what} is refused: it holds {odd}, as no model that this version of emofl knows.") from None
    except (ValueError, IndexError) as error:
        raise ModelError(f"{what} cannot be run by ONNX Runtime: it is no ONNX file.") from error


def _check_nodes(found: _Found) -> None:
    constants = found.stored - found.inputs
    for node in found.nodes:
        operation = _one(node, _NODE_OPERATION)
        if operation not in OPERATIONS:
            raise _Odd(f"the operation {operation[:40]!a}")
        if operation == "Constant":
            constants |= set(node.get(_NODE_OUTPUT, []))
    for node in found.nodes:
        operation = _one(node, _NODE_OPERATION)
        if operation in SHAPING and not constants.issuperset(filter(None, node.get(_NODE_INPUT, [])[SHAPING[operation] :])):
            raise _Odd(f"a {operation} to a size that is computed")


def _one(message: _Texts, number: int) -> str:
    """The text of a field that is there once: of several, readers may take either."""
    [text] = message.get(number, [])
    return text.decode()


def _read(content: bytes, place: Place, kind: _Kind, found: _Found) -> _Texts:
    """The byte fields of the message at `place`; what stands in the messages in it goes to `found`."""
    values: _Texts = {}
    for part in fields(content, *place):
        number, wire, start, end = part.number, part.wire, part.inner, part.end
        found.parts += 1
        if found.parts > MOST_PARTS:
            raise _Odd(f"more than {MOST_PARTS} parts")
        if number not in kind.plain and number not in kind.inner:
            raise _Odd(_NAMED.get((kind.name, number), f"field {number} of {kind.name}"))
        if number in kind.inner and wire != BYTES:
            raise ValueError("A message has another wire type.")
        if number in kind.inner:
            inner = kind.inner[number]
            below = _read(content, (start, end), inner, found)
            if inner is _NODE:
                found.nodes.append(below)
            elif inner is _INPUT:
                found.inputs |= set(below.get(_INPUT_NAME, []))
            elif inner is _TENSOR and kind is _GRAPH:
                found.stored.add(_one(below, _TENSOR_NAME).encode())
        elif wire == BYTES:
            values.setdefault(number, []).append(content[start:end])
    return values
