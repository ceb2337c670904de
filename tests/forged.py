"""Replies that Flower's gate lets in and no ServerApp can use, as a device may make them up. Actors and contract tests send them.

Flower's store looks at each object's hash and head alone: what an object says of itself, and of others, is its device's word.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message, Metadata
from flwr.app.message import make_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute


@dataclass(frozen=True)
class Forged:
    """What a device announces and sends.

    Attributes:
        tree: names of all objects; the first is the reply's.
        parts: each object's content, by name.
    """

    tree: ObjectTree
    parts: Mapping[str, bytes]


DEEP = "deep"
"""Objects within each other, more than Python goes down; they take a minute to send."""
UNREADABLE = ("no-json", "no-message", "no-content", "no-child", DEEP)
SPOOFED = ("other-sender", "other-run", "other-question")
SHAPES = (*UNREADABLE, *SPOOFED)
BOMB, NESTED = "bomb", "nested bomb"
"""An array that names one chunk ten thousand times; and an array of arrays that does."""


def forge(shape: str, honest: Message, other: int = 0) -> Forged:
    """The reply `honest`, made up anew.

    Args:
        shape: of `SHAPES`, `BOMB` or `NESTED`.
        other: node id of the device in whose name it is.
    """
    if shape in SPOOFED:
        return _signed_by_another(shape, honest, other)
    body = honest.deflate().split(b"\0", 1)[1]
    if shape in (BOMB, NESTED):
        parts = bomb(nested=shape == NESTED)
        return _sent(*parts, _object("Message", name(parts[-1]), body))
    if shape == "no-message":
        return _sent(_object("RecordDict", "", b"{}"))
    if shape == "no-content":
        return _sent(_object("Message", "", body))
    if shape == "no-child":
        return _sent(_object("Message", "ab" * 32, body))
    parts = [_object("RecordDict", "", b"no json" if shape == "no-json" else b"{}")]
    for _ in range(1_500 if shape == DEEP else 0):
        parts.append(_object("RecordDict", name(parts[-1]), b"{}"))
    return _sent(*parts, _object("Message", name(parts[-1]), body))


def _object(kind: str, child: str, body: bytes) -> bytes:
    return f"{kind} {child} {len(body)}".encode() + b"\0" + body


def bomb(chunk: int = 20_000, times: int = 10_000, nested: bool = False) -> list[bytes]:
    """A record of one array of `chunk` x `times` bytes, and what it is made of; nested: the same out of a tenth of the chunk."""
    parts = [_object("ArrayChunk", "", bytes(chunk // 10 if nested else chunk))]
    for often in (times // 100, 1_000) if nested else (times,):
        array = {"dtype": "uint8", "shape": [chunk * times], "stype": "numpy.ndarray", "arraychunk_ids": [0] * often}
        parts.append(_object("Array", name(parts[-1]), json.dumps(array).encode()))
    parts.append(_object("ArrayRecord", name(parts[-1]), json.dumps({"update": name(parts[-1])}).encode()))
    parts.append(_object("RecordDict", name(parts[-1]), json.dumps({"update": name(parts[-1])}).encode()))
    return parts


def name(content: bytes) -> str:
    """Under which Flower's store keeps it."""
    return hashlib.sha256(content).hexdigest()


def _sent(*parts: bytes) -> Forged:
    """The last is the reply. The tree is flat: Flower does not compare it with what the objects say of their children."""
    *names, root = map(name, parts)
    tree = ObjectTree(object_id=root, children=[ObjectTree(object_id=one) for one in names])
    return Forged(tree, dict(zip([*names, root], parts, strict=True)))


def _signed_by_another(shape: str, honest: Message, other: int) -> Forged:
    said = honest.metadata
    sender = other if shape == "other-sender" else said.src_node_id
    run = said.run_id + 1 if shape == "other-run" else said.run_id
    question = "0" * 64 if shape == "other-question" else said.reply_to_message_id
    metadata = Metadata(run, "", sender, said.dst_node_id, question, "", said.created_at, said.ttl, said.message_type)
    reply = make_message(metadata=metadata, content=honest.content)
    with no_object_id_recompute():
        return Forged(get_object_tree(reply), {one: part.deflate() for one, part in get_all_nested_objects(reply).items()})
